"""What a client says, answered; and when it has said too much, or too much that is wrong.

An ack or a nack that settles something is the session's. There are no more of these than messages were sent,
so they are not counted here.
"""

from app.core import inbound
from app.core.actions import Action, Answer, Authenticate, Authenticated, Complain
from app.core.expiry import Expiry


class Hearing:
    """Answers one client; `rate` is how many messages a second it may send.

    `expiry` is that of its token, None where nobody is asked for one; `takes_acks`: it asked to acknowledge.
    """

    __slots__ = ("_expiry", "_guard", "_rate", "_takes_acks", "is_out_of_patience")

    def __init__(self, rate: int, expiry: Expiry | None, *, takes_acks: bool) -> None:
        self._rate = rate
        self._expiry = expiry
        self._takes_acks = takes_acks
        # Most clients never say anything.
        self._guard: inbound.Guard | None = None
        self.is_out_of_patience = False
        """Whether so much was wrong that the connection is to end."""

    def answer(self, said: inbound.Inbound, now: float, *, settles: bool) -> list[Action]:
        """Answer a message; `settles`: it is an ack or a nack, and a right one."""
        if self._over_rate(now):
            return self._complain(inbound.RATE_LIMITED, now)
        match said:
            case inbound.Ping():
                return [Answer()]
            case inbound.Rejected():
                return self._complain(said, now)
            case inbound.Auth(token):
                return self._authenticate(token, now)
            case _ if not self._takes_acks:
                return self._complain(inbound.NO_ACK, now)
            case _:
                return [] if settles else self._complain(inbound.BAD_ACK, now)

    def reject(self, problem: inbound.Rejected, now: float) -> list[Action]:
        """Answer a message that is no text, or too much of it."""
        return self._complain(inbound.RATE_LIMITED if self._over_rate(now) else problem, now)

    def renewed(self, expires_at: float, now: float) -> list[Action]:
        """Answer a new token that was good."""
        if self._expiry is None:
            return []
        self._expiry.is_being_renewed = False
        self._expiry.renew(expires_at, now)
        return [Authenticated(expires_at - now)]

    def not_renewed(self, problem: inbound.Rejected, now: float) -> list[Action]:
        """Answer a new token that was not good, or could not be looked at; the one from before counts."""
        if self._expiry is None:
            return []
        self._expiry.is_being_renewed = False
        return self._complain(problem, now)

    def _authenticate(self, token: str, now: float) -> list[Action]:
        if self._expiry is None:
            return self._complain(inbound.NO_AUTH, now)
        if not token:
            return self._complain(inbound.NO_TOKEN, now)
        if self._expiry.is_being_renewed:
            return self._complain(inbound.ONE_AT_A_TIME, now)
        self._expiry.is_being_renewed = True
        return [Authenticate(token)]

    def _over_rate(self, now: float) -> bool:
        if self._guard is None:
            self._guard = inbound.Guard(self._rate)
        return self._guard.over_rate(now)

    def _complain(self, problem: inbound.Rejected, now: float) -> list[Action]:
        if self._guard is not None and self._guard.out_of_patience(now):
            self.is_out_of_patience = True
        return [Complain(problem)]

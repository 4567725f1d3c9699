"""What a client may say, and the error it gets for anything else."""

import json
from dataclasses import dataclass, field

HEARTBEATS = frozenset({"ping", "heartbeat"})


@dataclass(frozen=True, slots=True)
class Ping:
    """The client's own heartbeat; answered with `pong`."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The client has processed everything up to a sequence number."""

    number: int


@dataclass(frozen=True, slots=True)
class Nack:
    """The client has a message and cannot process it; `reason` is its own word for why, storable."""

    number: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Auth:
    """The client has a new token; empty when what it sent is none."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that could not be taken; `code` and `message` go back to the client."""

    code: str
    message: str


Inbound = Ping | Ack | Nack | Auth | Rejected

MALFORMED = Rejected("malformed", 'Send the text ping, or a JSON object such as {"type":"ping"}.')
BINARY = Rejected("binary", "Binary messages are not understood; send text.")
TOO_LARGE = Rejected("too_large", "The message is larger than this service takes.")
RATE_LIMITED = Rejected("rate_limited", "Too many messages in one second; slow down.")
NO_ACK = Rejected("bad_ack", "This connection did not ask for acks; nothing was marked.")
BAD_ACK = Rejected(
    "bad_ack", "seq must be that of a message sent here and not yet acknowledged; nothing was marked."
)
NO_AUTH = Rejected("unauthorized", "This service asks for no token; the message was ignored.")
NO_TOKEN = Rejected("unauthorized", "token must be the text of a JWT; the one you have still counts.")
ONE_AT_A_TIME = Rejected("unauthorized", "The token before this one is still being looked at; wait for it.")


def parse(text: str) -> Inbound:
    """Understand one text message of a client; never raises."""
    if text in HEARTBEATS:
        return Ping()
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return MALFORMED
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return MALFORMED
    match message["type"]:
        case "ping" | "heartbeat":
            return Ping()
        case "ack" | "nack" as kind:
            return _acknowledgement(kind, message)
        case "auth":
            token = message.get("token")
            return Auth(token if isinstance(token, str) else "")
        case _:
            return Rejected("unknown_type", "Unknown type; this service takes ping, ack, nack and auth.")


def _acknowledgement(kind: str, message: dict[str, object]) -> Ack | Nack | Rejected:
    number, reason = message.get("seq"), message.get("reason")
    if type(number) is not int or not (reason is None or isinstance(reason, str)):
        return BAD_ACK
    return Ack(number) if kind == "ack" else Nack(number, None if reason is None else _storable(reason))


def _storable(text: str) -> str:
    """The same as PostgreSQL's text holds it: JSON can have NUL, and halves of characters, in it."""
    return text.replace("\0", "").encode(errors="replace").decode()


class Guard:
    """How much rubbish and how many messages one connection may send; times are seconds."""

    __slots__ = ("_bad", "_rate", "_second", "_taken", "_window_start")

    PATIENCE = 20
    """Errors told within a minute; the next one ends the connection."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._second = -1
        self._taken = 0
        self._window_start = 0.0
        self._bad = 0

    def over_rate(self, now: float) -> bool:
        """Count one message; whether it is more than this second allows."""
        if int(now) != self._second:
            self._second, self._taken = int(now), 0
        self._taken += 1
        return self._taken > self._rate

    def out_of_patience(self, now: float) -> bool:
        """Count one bad message; whether it is one too many within a minute."""
        if now - self._window_start >= 60 or not self._bad:
            self._window_start, self._bad = now, 0
        self._bad += 1
        return self._bad > self.PATIENCE

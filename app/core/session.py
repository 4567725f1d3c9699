"""One connection's delivery as a state machine, told the time and performing nothing.

    catching up ──last row of a read sent, nothing shed──▶ live ──queue full──▶ catching up

This decides between its parts: catching up (`catching_up.py`), it is handed the pages of a read while rows
routed by the tail are held back; live, it is handed rows by the tail. Both are sent as the window allows
(`sending.py`), are in flight until confirmed (`confirming.py`), and what the client says is answered
(`hearing.py`). The window bounds what is in flight and the queue what waits, so a slow peer costs a fixed
amount and the table is its buffer.

Rules of this file: no clock, no socket, no database. Whatever is to be done is an action, performed
in order by the caller; `now` is a monotonic clock's seconds.
"""

from collections.abc import Iterable, Sequence
from enum import Enum, auto

from app.core import inbound
from app.core.acks import Acks
from app.core.actions import Action, Close, ExpiresSoon, SendPing
from app.core.catching_up import CatchingUp
from app.core.close_codes import CloseCode
from app.core.confirming import Confirming, Due
from app.core.expiry import Expiry
from app.core.flight import Flight, Limits, Pace
from app.core.hearing import Hearing
from app.core.messages import Message
from app.core.position import Pass, Position
from app.core.sending import Sending
from app.core.unproven import ByTime

EXPIRED = "the token has expired; get another one, then reconnect"


class Phase(Enum):
    """Where a session's rows come from."""

    CATCHING_UP = auto()
    LIVE = auto()
    CLOSED = auto()


class Session:
    """What one connection has, is owed, and is to do next.

    `acks`: its client acknowledges; otherwise its pongs, or time, confirm. `takes_sync` and `device_id` say
    which sync rows are for it; `tells_positions`, that its client wants a position with every row;
    `is_proven`, that it gave the position itself, and so has whatever that covers, delivered or not;
    `expires_at`, when its token is taken no longer, None where nobody is asked for one.
    """

    __slots__ = (
        "_catching_up",
        "_expiry",
        "_hearing",
        "_limits",
        "_owes_undelivered",
        "_sending",
        "confirming",
        "phase",
    )

    def __init__(
        self,
        limits: Limits,
        pace: Pace,
        *,
        position: Position | None = None,
        device_id: int | None = None,
        takes_sync: bool = False,
        tells_positions: bool = False,
        is_proven: bool = False,
        acks: bool = False,
        expires_at: float | None = None,
    ) -> None:
        self._limits = limits
        self.confirming = _confirming(limits, pace, acks=acks, for_device=device_id is not None)
        """What is in flight, and was not confirmed; to be looked at only."""
        self._sending = Sending(
            self.confirming,
            position,
            device_id=device_id,
            takes_sync=takes_sync,
            tells_positions=tells_positions,
        )
        self._expiry = None if expires_at is None else Expiry(expires_at)
        self._hearing = Hearing(limits.inbound_rate, self._expiry, takes_acks=acks)
        # Once per connection, and not by one cut in mid-read: that read had them, and goes on.
        self._owes_undelivered = not is_proven
        self.phase = Phase.CATCHING_UP
        # There exactly in that phase.
        self._catching_up: CatchingUp | None = CatchingUp()

    # ---- what the caller may ask

    @property
    def takes_sync(self) -> bool:
        """Whether sync rows are for it."""
        return self._sending.takes_sync

    @property
    def position(self) -> Position | None:
        """What the reader has been sent; before its first read what it came with, if anything."""
        return self._sending.position

    @property
    def in_flight(self) -> int:
        """Messages sent and not yet answered for."""
        return len(self.confirming)

    @property
    def waiting(self) -> int:
        """Messages in memory, not yet sent."""
        held = 0 if self._catching_up is None else self._catching_up.count_held
        return len(self._sending.ready) + held

    def is_on_its_way(self, row_id: int) -> bool:
        """Whether a row is in flight, waiting, or may still come from a read."""
        if self.phase is not Phase.LIVE or row_id in self.confirming:
            return True
        return any(message.id == row_id for message, _ in self._sending.ready)

    def position_told(self, routed: Pass | None) -> Position | None:
        """What the client may keep at this point of the stream: all it was sent, and no more."""
        if self.phase is not Phase.LIVE or self._sending.ready:
            return self.position
        return self._sending.level_with(routed) or self.position

    def settled_position(self, routed: Pass | None) -> Position | None:
        """What the reader has when nothing is under way, given the last pass routed whole."""
        is_settled = not (self.confirming or self.confirming.unproven or self._sending.ready)
        return self._sending.level_with(routed) if is_settled and self.phase is Phase.LIVE else None

    def deadline(self) -> float:
        """When `tick` must be called next; infinity once closed."""
        if self.phase is Phase.CLOSED:
            return float("inf")
        due = self.confirming.deadline()
        return due if self._expiry is None else min(due, self._expiry.deadline())

    # ---- what happens to it

    def open(self, now: float) -> list[Action]:
        """Begin with the first read."""
        self.confirming.begin(now)
        return self._pump(now)

    def begin_read(self, first: Pass, *, partial: bool = False) -> None:
        """Say which pass the read makes; its rows follow by `page`.

        `partial`: it only ends the pass in which the reader was cut, and another read must follow.
        """
        self._owes_undelivered = False
        self._sending.begin_pass(first, partial=partial)
        if self._catching_up is not None:
            self._catching_up.begun(partial=partial)

    def page(self, messages: Sequence[Message], *, more: bool, now: float) -> list[Action]:
        """Take the next rows of the read, in id order; `more` when others follow."""
        if self._catching_up is None:
            return []
        if self._catching_up.is_outdated:
            return self.interrupt(now)
        self._catching_up.came(more=more)
        self._sending.add_page(messages)
        return self._pump(now)

    def interrupt(self, now: float) -> list[Action]:
        """Begin the read again from what was sent: the one under way cannot go on."""
        if self._catching_up is None:
            return []
        self._catch_up()
        return self._pump(now)

    def route(self, messages: Iterable[Message], found_by: Pass, now: float) -> list[Action]:
        """Take rows that the tail found, in id order."""
        if self.phase is Phase.CLOSED:
            return []
        sending = self._sending
        if self._catching_up is not None:
            mine = (message for message in messages if sending.is_mine(message))
            self._catching_up.hold(mine, found_by, self._limits)
            return []
        actions: list[Action] = []
        sending.route(messages, found_by, actions, now)
        if self.confirming.should_ask(now):
            actions.append(self._ping(now))
        if sending.ready.count and self._is_full():
            self._fall_back()
        return actions

    def repeated(self, done: Pass) -> None:
        """Note that the tail has gone through a pass across a restart: whoever is fed live has it all."""
        if self.phase is Phase.LIVE:
            self._sending.go_over(done)

    def read_again(self, now: float) -> list[Action]:
        """Drop what waits in memory: the table is to say once more what is for this user."""
        if self.phase is Phase.CLOSED:
            return []
        self.confirming.keep_back()
        if self._catching_up is not None:
            self._catching_up.look_again()
        if self._sending.ready:
            self._fall_back()
        return self._pump(now)

    def redeliver(self, message: Message, now: float) -> list[Action]:
        """Send a stale row again, out of order, unless it is on its way, or too much waits already."""
        if not self._sending.is_mine(message) or self.is_on_its_way(message.id) or self._is_full():
            return []
        self._sending.add_again(message)
        return self._pump(now)

    def receive(self, text: str, now: float) -> list[Action]:
        """Take a text message of the client."""
        if self.phase is Phase.CLOSED:
            return []
        said = inbound.parse(text)
        settled = None
        if isinstance(said, inbound.Ack | inbound.Nack):
            settled = self.confirming.settle(said, now)
            if settled is not None and (actions := settled + self._pump(now)):
                return actions
        return self._answered(self._hearing.answer(said, now, settles=settled is not None))

    def reject(self, problem: inbound.Rejected, now: float) -> list[Action]:
        """Take a message that is no text, or too much of it."""
        if self.phase is Phase.CLOSED:
            return []
        return self._answered(self._hearing.reject(problem, now))

    def renewed(self, expires_at: float, now: float) -> list[Action]:
        """Go on with the client's new token, which was good."""
        return [] if self.phase is Phase.CLOSED else self._hearing.renewed(expires_at, now)

    def not_renewed(self, problem: inbound.Rejected, now: float) -> list[Action]:
        """Go on with the token from before: the new one was not good, or could not be looked at."""
        if self.phase is Phase.CLOSED:
            return []
        return self._answered(self._hearing.not_renewed(problem, now))

    def pong(self, now: float) -> list[Action]:
        """The peer answered the ping: it has taken everything sent before it."""
        if self.phase is Phase.CLOSED or not self.confirming.is_asking:
            return []
        return [*self.confirming.answered(now), *self._pump(now)]

    def tick(self, now: float) -> list[Action]:
        """Let time pass: confirm by it, ask for a confirmation, keep the peer alive, or give up on it."""
        if now < self.deadline():
            return []
        actions: list[Action] = []
        if self._expiry is not None and self._expiry.is_over(now):
            return self.close(CloseCode.UNAUTHENTICATED, EXPIRED)
        if self._expiry is not None and self._expiry.warns(now):
            actions.append(ExpiresSoon(self._expiry.at - now))
        if confirmed := self.confirming.elapsed(now):
            actions += [*confirmed, *self._pump(now)]
        match self.confirming.due(now):
            case Due.ASK:
                actions.append(self._ping(now))
            case Due.SEND_AGAIN:
                actions += self._sending.send_again(now)
            case Due.TOOK_NOTHING:
                actions += self.close(
                    CloseCode.TOOK_NOTHING, "took nothing for too long; reconnect and resume"
                )
            case Due.SILENT:
                actions += self.close(CloseCode.INTERNAL_ERROR, "no answer to a ping")
        return actions

    def close(self, code: CloseCode, reason: str) -> list[Action]:
        """End it from our side; nothing to do when it has ended."""
        if self.phase is Phase.CLOSED:
            return []
        self.phase = Phase.CLOSED
        self._catching_up = None
        return [Close(code, reason)]

    def hasten(self, now: float) -> list[Action]:
        """Ask for a confirmation now: the connection is about to be closed."""
        return [self._ping(now)] if self.confirming.may_ask else []

    def closed(self) -> None:
        """The peer is gone: let go of everything; what was in flight stays undelivered."""
        self.phase = Phase.CLOSED
        self._catching_up = None
        self._sending.ready.clear()
        self.confirming.clear()

    # ---- how it decides

    def _pump(self, now: float) -> list[Action]:
        actions: list[Action] = []
        while self._sending.send(actions, now) and self._catching_up is not None:
            if self._catching_up.is_read:
                self._end_read(self._catching_up, actions, now)
                continue
            step = self._catching_up.next_step(self.position, with_undelivered=self._owes_undelivered)
            if step is None:
                break
            actions.append(step)
        if self.confirming.should_ask(now):
            actions.append(self._ping(now))
        return actions

    def _end_read(self, ended: CatchingUp, actions: list[Action], now: float) -> None:
        self._sending.end_pass()
        if ended.needs_another:
            self._catch_up()
            return
        self.phase = Phase.LIVE
        self._catching_up = None
        for message, found_by in ended.held():
            self._sending.route((message,), found_by, actions, now)

    def _is_full(self) -> bool:
        return self._sending.ready.exceeds(self._limits.queue, self._limits.queue_bytes)

    def _fall_back(self) -> None:
        """Go back to reading, from what was sent: the table keeps what is dropped."""
        self._sending.ready.clear()
        self._catch_up()

    def _catch_up(self) -> None:
        self.phase = Phase.CATCHING_UP
        self._catching_up = CatchingUp()

    def _ping(self, now: float) -> SendPing:
        self.confirming.ask(now)
        return SendPing()

    def _answered(self, actions: list[Action]) -> list[Action]:
        if self._hearing.is_out_of_patience:
            return actions + self.close(CloseCode.BAD_REQUEST, "too many bad messages")
        return actions


def _confirming(limits: Limits, pace: Pace, *, acks: bool, for_device: bool) -> Confirming:
    if acks:
        return Acks(limits, for_device=for_device)
    by_pong_or_time = ByTime if limits.confirmed_after else Flight
    return by_pong_or_time(limits, pace, for_device=for_device)

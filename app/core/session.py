"""One connection's delivery as a state machine, told the time and performing nothing.

    catching up ──last row of a read sent, nothing shed──▶ live ──queue full──▶ catching up

Catching up, it is handed the pages of a read while rows routed by the tail are held back; the read's
snapshot says which of them it already has. Live, it is handed rows by the tail. The window (`flight`)
bounds what is in flight and the queue what waits, so a slow peer costs a fixed amount and the table is
its buffer.

Rules of this file: no clock, no socket, no database. Whatever is to be done is an action, performed
in order by the caller; `now` is a monotonic clock's seconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import Enum, auto

from app.core import inbound
from app.core.acks import Acks
from app.core.actions import (
    Action,
    Answer,
    Authenticate,
    Authenticated,
    Close,
    Complain,
    ExpiresSoon,
    NextPage,
    Send,
    SendPing,
    StartRead,
)
from app.core.close_codes import CloseCode
from app.core.confirming import Confirming, Due
from app.core.expiry import Expiry
from app.core.flight import Flight, Limits, Pace
from app.core.messages import Message
from app.core.position import Pass, Position
from app.core.queue import Queue
from app.core.unproven import ByTime

EXPIRED = "the token has expired; get another one, then reconnect"
TOOK_NOTHING = "took nothing, or acknowledged nothing, for too long; reconnect and resume"


class Phase(Enum):
    """Where a session's rows come from."""

    CATCHING_UP = auto()
    LIVE = auto()
    CLOSED = auto()


class _Read(Enum):
    """How far the read of a session that catches up has come."""

    TO_START = auto()
    AWAITED = auto()
    MORE = auto()
    LAST = auto()


class Session:
    """What one connection has, is owed, and is to do next.

    `acks`: its client acknowledges; otherwise its pongs, or time, confirm. `takes_sync` and `device_id` say
    which sync rows are for it; `tells_positions`, that its client wants a position with every row;
    `is_proven`, that it gave the position itself, and so has whatever that covers, delivered or not;
    `expires_at`, when its token is taken no longer, None where nobody is asked for one.
    """

    __slots__ = (
        "_after_id",
        "_confirming",
        "_expiry",
        "_found_by",
        "_given",
        "_guard",
        "_held",
        "_limits",
        "_owes_undelivered",
        "_partial",
        "_pass",
        "_read",
        "_ready",
        "_shed",
        "_tells_positions",
        "device_id",
        "phase",
        "takes_sync",
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
        self.phase = Phase.CATCHING_UP
        self.device_id = device_id
        self.takes_sync = takes_sync
        self._tells_positions = tells_positions
        self._limits = limits
        self._confirming = _confirming(limits, pace, acks=acks, for_device=device_id is not None)
        self._guard: inbound.Guard | None = None
        self._expiry = None if expires_at is None else Expiry(expires_at)

        # What the reader had when it came. From its first read on: the pass under way as this reader makes it
        # and as it was found (a live pass may begin before what the reader has), and the last row of it that
        # was sent, None when none is left.
        self._given = position
        self._pass: Pass | None = None
        self._found_by: Pass | None = None
        self._after_id: int | None = None
        self._partial = False
        # Once per connection, and not by one cut in mid-read: that read had them, and goes on.
        self._owes_undelivered = not is_proven
        self._read = _Read.TO_START
        self._ready = Queue()
        self._held = Queue()
        self._shed = False

    # ---- what the caller may ask

    @property
    def position(self) -> Position | None:
        """What the reader has been sent; before its first read what it came with, if anything."""
        if self._pass is None:
            return self._given
        return self._pass.end() if self._after_id is None else self._pass.at(self._after_id)

    @property
    def in_flight(self) -> int:
        """Messages sent and not yet answered for."""
        return len(self._confirming)

    @property
    def unproven(self) -> int:
        """Messages taken by the peer that only time will confirm."""
        return self._confirming.unproven

    @property
    def unconfirmed(self) -> list[int]:
        """Ids of what is in flight, in order."""
        return [message.id for message, _ in self._confirming]

    @property
    def oldest_unacked(self) -> Message | None:
        """What stands first among what a client that acks has not acknowledged."""
        return self._confirming.oldest_unacked

    @property
    def waiting(self) -> int:
        """Messages in memory, not yet sent."""
        return len(self._ready) + len(self._held)

    def is_on_its_way(self, row_id: int) -> bool:
        """Whether a row is in flight, waiting, or may still come from a read."""
        if self.phase is not Phase.LIVE or row_id in self._confirming:
            return True
        return any(message.id == row_id for message, _ in self._ready)

    def position_told(self, routed: Pass | None) -> Position | None:
        """What the client may keep at this point of the stream: all it was sent, and no more."""
        if self.phase is not Phase.LIVE or self._ready:
            return self.position
        return self._level_with(routed) or self.position

    def settled_position(self, routed: Pass | None) -> Position | None:
        """What the reader has when nothing is under way, given the last pass routed whole."""
        if self.phase is not Phase.LIVE or self._confirming or self._confirming.unproven or self._ready:
            return None
        return self._level_with(routed)

    def _level_with(self, routed: Pass | None) -> Position | None:
        if self._pass is None or routed is None or routed.incarnation != self._pass.incarnation:
            return None
        return routed.end() if routed.reading.covers(self._pass.reading) else None

    def deadline(self) -> float:
        """When `tick` must be called next; infinity once closed."""
        if self.phase is Phase.CLOSED:
            return float("inf")
        due = self._confirming.deadline()
        return due if self._expiry is None else min(due, self._expiry.deadline())

    # ---- what happens to it

    def open(self, now: float) -> list[Action]:
        """Begin with the first read."""
        self._confirming.begin(now)
        return self._pump(now)

    def begin_read(self, first: Pass, *, partial: bool = False) -> None:
        """Say which pass the read makes; its rows follow by `page`.

        `partial`: it only ends the pass in which the reader was cut, and another read must follow.
        """
        self._owes_undelivered = False
        position = self.position
        self._after_id = position.after_id if partial and position is not None else 0
        if partial and self._pass is not None:
            first = replace(first, kept=self._pass.kept)
        self._partial = partial
        self._pass = self._found_by = first

    def page(self, messages: Sequence[Message], *, more: bool, now: float) -> list[Action]:
        """Take the next rows of the read, in id order; `more` when others follow."""
        if self.phase is Phase.CLOSED:
            return []
        self._read = _Read.MORE if more else _Read.LAST
        for message in messages:
            if self._is_mine(message):
                self._ready.add(message, self._pass)
        return self._pump(now)

    def interrupt(self, now: float) -> list[Action]:
        """Begin the read again from what was sent: the one under way cannot go on."""
        if self.phase is Phase.CLOSED:
            return []
        self._read = _Read.TO_START
        return self._pump(now)

    def route(self, messages: Iterable[Message], found_by: Pass, now: float) -> list[Action]:
        """Take rows that the tail found, in id order."""
        if self.phase is Phase.CLOSED:
            return []
        if self.phase is Phase.CATCHING_UP:
            self._hold(messages, found_by)
            return []
        self._queue(messages, found_by)
        actions = self._pump(now)
        if self._is_full(self._ready):
            self._fall_back()
        return actions

    def read_again(self, now: float) -> list[Action]:
        """Drop what waits in memory: the table is to say once more what is for this user."""
        if self.phase is Phase.CLOSED:
            return []
        self._confirming.keep_back()
        if self._held:
            self._shed_held()
        if self._ready:
            self._fall_back()
        return self._pump(now)

    def redeliver(self, message: Message, now: float) -> list[Action]:
        """Send a stale row again, out of order, unless it is on its way already."""
        if not self._is_mine(message) or self.is_on_its_way(message.id):
            return []
        self._ready.add(message._replace(redelivered=True), None)
        return self._pump(now)

    def receive(self, text: str, now: float) -> list[Action]:
        """Take a text message of the client."""
        if self.phase is Phase.CLOSED:
            return []
        said = inbound.parse(text)
        # Each of these settles something, so there are no more of them than messages were sent.
        settled = None
        if isinstance(said, inbound.Ack | inbound.Nack):
            settled = self._confirming.settle(said, now)
            if settled is not None and (actions := settled + self._pump(now)):
                return actions
        if self._over_rate(now):
            return self._complain(inbound.RATE_LIMITED, now)
        match said:
            case inbound.Ping():
                return [Answer()]
            case inbound.Rejected():
                return self._complain(said, now)
            case inbound.Auth(token):
                return self._authenticate(token, now)
            case _ if not self._confirming.takes_acks:
                return self._complain(inbound.NO_ACK, now)
            case _:
                return [] if settled is not None else self._complain(inbound.BAD_ACK, now)

    def reject(self, problem: inbound.Rejected, now: float) -> list[Action]:
        """Take a message that is no text, or too much of it."""
        if self.phase is Phase.CLOSED:
            return []
        return self._complain(inbound.RATE_LIMITED if self._over_rate(now) else problem, now)

    def renewed(self, expires_at: float, now: float) -> list[Action]:
        """Go on with the client's new token, which was good."""
        if self.phase is Phase.CLOSED or self._expiry is None:
            return []
        self._expiry.is_being_renewed = False
        self._expiry.renew(expires_at, now)
        return [Authenticated(expires_at - now)]

    def not_renewed(self, problem: inbound.Rejected, now: float) -> list[Action]:
        """Go on with the token from before: the new one was not good, or could not be looked at."""
        if self.phase is Phase.CLOSED or self._expiry is None:
            return []
        self._expiry.is_being_renewed = False
        return self._complain(problem, now)

    def pong(self, now: float) -> list[Action]:
        """The peer answered the ping: it has taken everything sent before it."""
        if self.phase is Phase.CLOSED or not self._confirming.is_asking:
            return []
        return [*self._confirming.answered(now), *self._pump(now)]

    def tick(self, now: float) -> list[Action]:
        """Let time pass: confirm by it, ask for a confirmation, keep the peer alive, or give up on it."""
        if now < self.deadline():
            return []
        actions: list[Action] = []
        if self._expiry is not None and self._expiry.is_over(now):
            return self.close(CloseCode.UNAUTHENTICATED, EXPIRED)
        if self._expiry is not None and self._expiry.warns(now):
            actions.append(ExpiresSoon(self._expiry.at - now))
        if confirmed := self._confirming.elapsed(now):
            actions += [*confirmed, *self._pump(now)]
        match self._confirming.due(now):
            case Due.ASK:
                actions.append(self._ping(now))
            case Due.SEND_AGAIN:
                if (sending := self._confirming.send_again(now)) is not None:
                    message, number = sending
                    actions.append(Send(message, self._told_position(), number, again=True))
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
        return [Close(code, reason)]

    def hasten(self, now: float) -> list[Action]:
        """Ask for a confirmation now: the connection is about to be closed."""
        return [self._ping(now)] if self._confirming.may_ask else []

    def closed(self) -> None:
        """The peer is gone: let go of everything; what was in flight stays undelivered."""
        self.phase = Phase.CLOSED
        for rows in (self._ready, self._held, self._confirming):
            rows.clear()

    # ---- how it decides

    def _pump(self, now: float) -> list[Action]:
        actions: list[Action] = []
        while self._send_ready(actions, now) and self.phase is Phase.CATCHING_UP:
            match self._read:
                case _Read.AWAITED:
                    break
                case _Read.MORE:
                    self._read = _Read.AWAITED
                    actions.append(NextPage())
                case _Read.LAST:
                    self._end_read()
                case _Read.TO_START:
                    self._read = _Read.AWAITED
                    self._shed = False
                    self._held.clear()
                    actions.append(StartRead(self.position, self._owes_undelivered))
        if self._confirming.should_ask(now):
            actions.append(self._ping(now))
        return actions

    def _send_ready(self, actions: list[Action], now: float) -> bool:
        """Send what the window takes; whether it has room for more."""
        while self._confirming.has_room:
            if not self._ready:
                return True
            message, found_by = self._ready.take()
            if found_by is not None:
                if found_by is not self._found_by:
                    self._found_by, self._pass = found_by, self._own(found_by)
                self._after_id = message.id
            number = self._confirming.add(message, self._pass if found_by is not None else None, now)
            actions.append(Send(message, self._told_position(), number, again=message.redelivered))
        return False

    def _end_read(self) -> None:
        self._after_id = None
        if self._partial or self._shed:
            self._read = _Read.TO_START
            return
        self.phase = Phase.LIVE
        held = self._held
        self._held = Queue()
        for message, found_by in held:
            if found_by is not None:
                self._queue((message,), found_by)

    def _fall_back(self) -> None:
        """Go back to reading, from what was sent: the table keeps what is dropped."""
        self._ready.clear()
        self.phase = Phase.CATCHING_UP
        self._read = _Read.TO_START

    def _shed_held(self) -> None:
        self._held.clear()
        self._shed = True

    def _own(self, found_by: Pass) -> Pass:
        """The pass as this reader makes it: from what it has already, if that is more."""
        # Live, a new pass begins when every row of the one before has been sent.
        before = self._pass
        if before is None or before.incarnation != found_by.incarnation:
            return found_by
        if found_by.seen.covers(before.reading):
            return found_by
        return replace(found_by, seen=before.reading, seen_at=before.reading_at)

    def _queue(self, messages: Iterable[Message], found_by: Pass) -> None:
        # Xids say something only within one incarnation; after a restart a row too many is allowed.
        before = self._pass
        if before is not None and before.incarnation != found_by.incarnation:
            before = None
        for message in messages:
            if not self._is_mine(message):
                continue
            if before is None or not before.had(message.xid, message.id, self._after_id):
                self._ready.add(message, found_by)

    def _hold(self, messages: Iterable[Message], found_by: Pass) -> None:
        if self._shed or self._read is _Read.TO_START:
            return  # the read to come takes its snapshot later, and has them
        for message in messages:
            if self._is_mine(message):
                self._held.add(message, found_by)
        if self._is_full(self._held):
            self._shed_held()

    def _is_full(self, queue: Queue) -> bool:
        return len(queue) > self._limits.queue or queue.size > self._limits.queue_bytes

    def _is_mine(self, message: Message) -> bool:
        return not message.is_sync or (self.takes_sync and message.origin != self.device_id)

    def _ping(self, now: float) -> SendPing:
        self._confirming.ask(now)
        return SendPing()

    def _told_position(self) -> Position | None:
        return self.position if self._tells_positions else None

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
            self._guard = inbound.Guard(self._limits.inbound_rate)
        return self._guard.over_rate(now)

    def _complain(self, problem: inbound.Rejected, now: float) -> list[Action]:
        actions: list[Action] = [Complain(problem)]
        if self._guard is not None and self._guard.out_of_patience(now):
            actions += self.close(CloseCode.BAD_REQUEST, "too many bad messages")
        return actions


def _confirming(limits: Limits, pace: Pace, *, acks: bool, for_device: bool) -> Confirming:
    if acks:
        return Acks(limits, for_device=for_device)
    by_pong_or_time = ByTime if limits.confirmed_after else Flight
    return by_pong_or_time(limits, pace, for_device=for_device)

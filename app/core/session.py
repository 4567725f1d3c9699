"""One connection's delivery as a state machine, told the time and performing nothing.

    catching up ──last row of a read sent, nothing shed──▶ live ──queue full──▶ catching up

Catching up, it is handed the pages of a read while rows routed by the tail are held back; the read's
snapshot says which of them it already has. Live, it is handed rows by the tail. A row sent is in
flight until the peer answers a ping that was sent after it: then it is confirmed. The window bounds
what is in flight and the queue what waits, so a slow peer costs a fixed amount and the table is its
buffer. The window starts small and follows the peer, so that one which takes a message a second is
asked often enough to be seen taking.

Rules of this file: no clock, no socket, no database. Whatever is to be done is an action, performed
in order by the caller; `now` is a monotonic clock's seconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from app.core import inbound
from app.core.actions import (
    Action,
    Answer,
    Close,
    Complain,
    Confirmed,
    NextPage,
    Send,
    SendPing,
    StartRead,
)
from app.core.close_codes import CloseCode
from app.core.messages import Message
from app.core.position import Pass, Position
from app.core.queue import Queue

FIRST_WINDOW = 32
SMALLEST_WINDOW = 4
QUICK_ANSWER = 1.0
SLOW_ANSWER = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection: messages, bytes and seconds."""

    window: int = 256
    window_bytes: int = 1 << 20
    queue: int = 256
    queue_bytes: int = 1 << 20
    heartbeat_interval: float = 20.0
    heartbeat_patience: float = 20.0
    takes_nothing_after: float = 60.0
    inbound_rate: int = 20


@dataclass(slots=True)
class Pace:
    """How long, in seconds, a row may stay unconfirmed before a ping asks for it.

    One for all sessions of a process, which lengthens it while it is busy.
    """

    confirm_after: float = 0.2


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

    `takes_sync` and `device_id` say which sync rows are for it.
    """

    __slots__ = (
        "_covered",
        "_first_unconfirmed_at",
        "_found_by",
        "_guard",
        "_held",
        "_in_flight",
        "_last_heard",
        "_limits",
        "_owes_undelivered",
        "_pace",
        "_partial",
        "_pass",
        "_ping_sent_at",
        "_position",
        "_progress_at",
        "_read",
        "_ready",
        "_shed",
        "_window",
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
    ) -> None:
        self.phase = Phase.CATCHING_UP
        self.device_id = device_id
        self.takes_sync = takes_sync
        self._limits = limits
        self._pace = pace
        self._guard: inbound.Guard | None = None

        # What the reader has been sent; None until its first read begins.
        self._position = position
        # The pass under way as this reader makes it, and as it was found: a live pass may begin before
        # what the reader has.
        self._pass: Pass | None = None
        self._found_by: Pass | None = None
        self._partial = False
        # Once per connection, and not by one cut in mid-read: that read had them, and goes on.
        self._owes_undelivered = True
        self._read = _Read.TO_START
        self._ready = Queue()
        self._held = Queue()
        self._shed = False

        self._in_flight = Queue()
        self._window = min(FIRST_WINDOW, limits.window)
        self._covered = 0
        self._ping_sent_at: float | None = None
        self._first_unconfirmed_at = 0.0
        self._progress_at = 0.0
        self._last_heard = 0.0

    # ---- what the caller may ask

    @property
    def position(self) -> Position | None:
        """What the reader has been sent; None before its first read."""
        return self._position

    @property
    def in_flight(self) -> int:
        """Messages sent and not yet confirmed."""
        return len(self._in_flight)

    @property
    def unconfirmed(self) -> list[int]:
        """Ids of what was sent and not yet confirmed, in order."""
        return [message.id for message, _ in self._in_flight]

    @property
    def waiting(self) -> int:
        """Messages in memory, not yet sent."""
        return len(self._ready) + len(self._held)

    def is_on_its_way(self, row_id: int) -> bool:
        """Whether a row is in flight, waiting, or may still come from a read."""
        if self.phase is not Phase.LIVE:
            return True
        return any(message.id == row_id for queue in (self._in_flight, self._ready) for message, _ in queue)

    def settled_position(self, routed: Pass | None) -> Position | None:
        """What the reader has when nothing is under way, given the last pass routed whole."""
        if self.phase is not Phase.LIVE or self._in_flight or self._ready or self._position is None:
            return None
        if routed is None or routed.incarnation != self._position.incarnation:
            return None
        reached = self._position.reading or self._position.seen
        return routed.end() if routed.reading.covers(reached) else None

    def deadline(self) -> float:
        """When `tick` must be called next; infinity once closed."""
        if self.phase is Phase.CLOSED:
            return float("inf")
        if self._ping_sent_at is not None:
            if self._in_flight:
                return self._progress_at + self._limits.takes_nothing_after
            return self._ping_sent_at + self._limits.heartbeat_patience
        if self._in_flight:
            return self._first_unconfirmed_at + self._pace.confirm_after
        return self._last_heard + self._limits.heartbeat_interval

    # ---- what happens to it

    def open(self, now: float) -> list[Action]:
        """Begin with the first read."""
        self._last_heard = now
        return self._pump(now)

    def begin_read(self, first: Pass, *, partial: bool = False) -> None:
        """Say which pass the read makes; its rows follow by `page`.

        `partial`: it only ends the pass in which the reader was cut, and another read must follow.
        """
        self._owes_undelivered = False
        self._partial = partial
        self._pass = self._found_by = first
        self._position = first.at(self._position.after_id if partial and self._position else 0)

    def page(self, messages: Sequence[Message], *, more: bool, now: float) -> list[Action]:
        """Take the next rows of the read, in id order; `more` when others follow."""
        if self.phase is Phase.CLOSED:
            return []
        self._read = _Read.MORE if more else _Read.LAST
        for message in messages:
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
            # The table keeps them: back to reading, from what was sent.
            self._ready.clear()
            self.phase = Phase.CATCHING_UP
            self._read = _Read.TO_START
        return actions

    def redeliver(self, message: Message, now: float) -> list[Action]:
        """Send a stale row again, out of order, unless it is on its way already."""
        if not self._is_mine(message) or self.is_on_its_way(message.id):
            return []
        self._ready.add(message, None)
        return self._pump(now)

    def receive(self, text: str, now: float) -> list[Action]:
        """Take a text message of the client."""
        if self.phase is Phase.CLOSED:
            return []
        if self._over_rate(now):
            return self._complain(inbound.RATE_LIMITED, now)
        match inbound.parse(text):
            case inbound.Ping():
                return [Answer()]
            case problem:
                return self._complain(problem, now)

    def reject(self, problem: inbound.Rejected, now: float) -> list[Action]:
        """Take a message that is no text, or too much of it."""
        if self.phase is Phase.CLOSED:
            return []
        return self._complain(inbound.RATE_LIMITED if self._over_rate(now) else problem, now)

    def pong(self, now: float) -> list[Action]:
        """The peer answered the ping: everything sent before it is confirmed."""
        if self.phase is Phase.CLOSED or self._ping_sent_at is None:
            return []
        waited = now - self._ping_sent_at
        self._ping_sent_at = None
        self._progress_at = self._last_heard = self._first_unconfirmed_at = now
        actions: list[Action] = []
        if self._covered:
            self._adapt_window(waited)
            actions.append(self._confirm())
        return actions + self._pump(now)

    def tick(self, now: float) -> list[Action]:
        """Let time pass: ask for a confirmation, keep the peer alive, or give up on it."""
        if now < self.deadline():
            return []
        if self._ping_sent_at is None:
            return [self._ping(now)]
        if self._in_flight:
            return self.close(CloseCode.TOOK_NOTHING, "took nothing for too long; reconnect and resume")
        return self.close(CloseCode.INTERNAL_ERROR, "no answer to a ping")

    def close(self, code: CloseCode, reason: str) -> list[Action]:
        """End it from our side; nothing to do when it has ended."""
        if self.phase is Phase.CLOSED:
            return []
        self.phase = Phase.CLOSED
        return [Close(code, reason)]

    def hasten(self, now: float) -> list[Action]:
        """Ask for a confirmation now: the connection is about to be closed."""
        return [self._ping(now)] if self._in_flight and self._ping_sent_at is None else []

    def closed(self) -> None:
        """The peer is gone: let go of everything; what was in flight stays undelivered."""
        self.phase = Phase.CLOSED
        for queue in (self._ready, self._held, self._in_flight):
            queue.clear()

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
                    actions.append(StartRead(self._position, self._owes_undelivered))
        half_full = 2 * len(self._in_flight) >= self._window
        if self._ping_sent_at is None and (
            half_full or 2 * self._in_flight.size >= self._limits.window_bytes
        ):
            actions.append(self._ping(now))
        return actions

    def _send_ready(self, actions: list[Action], now: float) -> bool:
        """Send what the window takes; whether it has room for more."""
        while self._has_room():
            if not self._ready:
                return True
            message, found_by = self._ready.take()
            if found_by is not None:
                if found_by is not self._found_by:
                    self._found_by, self._pass = found_by, self._own(found_by)
                if self._pass is not None:
                    self._position = self._pass.at(message.id)
            if not self._in_flight:
                self._first_unconfirmed_at = self._progress_at = now
            self._in_flight.add(message, self._pass if found_by is not None else None)
            actions.append(Send(message))
        return False

    def _has_room(self) -> bool:
        flying = self._in_flight
        return len(flying) < self._window and (not flying or flying.size < self._limits.window_bytes)

    def _end_read(self) -> None:
        if self._pass is not None:
            self._position = self._pass.end()
        if self._partial or self._shed:
            self._read = _Read.TO_START
            return
        self.phase = Phase.LIVE
        held = self._held
        self._held = Queue()
        for message, found_by in held:
            if found_by is not None:
                self._queue((message,), found_by)

    def _own(self, found_by: Pass) -> Pass:
        """The pass as this reader makes it: from what it has already, if that is more."""
        position = self._position
        if position is None or position.incarnation != found_by.incarnation:
            return found_by
        # Live, a new pass begins when every row of the one before has been sent.
        if position.reading is None or self._pass is None:
            reached, reached_at = position.seen, position.taken_at
        else:
            reached, reached_at = self._pass.reading, self._pass.reading_at
        if found_by.seen.covers(reached):
            return found_by
        return Pass(reached, reached_at, found_by.reading, found_by.reading_at, found_by.incarnation)

    def _queue(self, messages: Iterable[Message], found_by: Pass) -> None:
        position = self._position
        # Xids say something only within one incarnation; after a restart a row too many is allowed.
        comparable = position is not None and position.incarnation == found_by.incarnation
        for message in messages:
            if not self._is_mine(message):
                continue
            if comparable and position is not None and position.has(message.xid, message.id):
                continue
            self._ready.add(message, found_by)

    def _hold(self, messages: Iterable[Message], found_by: Pass) -> None:
        if self._shed or self._read is _Read.TO_START:
            return  # the read to come takes its snapshot later, and has them
        for message in messages:
            if self._is_mine(message):
                self._held.add(message, found_by)
        if self._is_full(self._held):
            self._held.clear()
            self._shed = True

    def _is_full(self, queue: Queue) -> bool:
        return len(queue) > self._limits.queue or queue.size > self._limits.queue_bytes

    def _is_mine(self, message: Message) -> bool:
        return not message.is_sync or (self.takes_sync and message.origin != self.device_id)

    def _ping(self, now: float) -> SendPing:
        self._ping_sent_at = now
        self._covered = len(self._in_flight)
        return SendPing()

    def _adapt_window(self, waited: float) -> None:
        if waited <= QUICK_ANSWER:
            self._window = min(self._window * 2, self._limits.window)
        elif waited > SLOW_ANSWER:
            self._window = max(self._window // 2, SMALLEST_WINDOW)

    def _confirm(self) -> Confirmed:
        events: list[int] = []
        sync_rows: list[int] = []
        last: tuple[Pass, int] | None = None
        for _ in range(self._covered):
            message, found_by = self._in_flight.take()
            (sync_rows if message.is_sync else events).append(message.id)
            if found_by is not None:
                last = found_by, message.id
        self._covered = 0
        position = last[0].at(last[1]) if last and self.device_id is not None else None
        return Confirmed(tuple(events), tuple(sync_rows), position)

    def _over_rate(self, now: float) -> bool:
        if self._guard is None:
            self._guard = inbound.Guard(self._limits.inbound_rate)
        return self._guard.over_rate(now)

    def _complain(self, problem: inbound.Rejected, now: float) -> list[Action]:
        actions: list[Action] = [Complain(problem)]
        if self._guard is not None and self._guard.out_of_patience(now):
            actions += self.close(CloseCode.BAD_REQUEST, "too many bad messages")
        return actions

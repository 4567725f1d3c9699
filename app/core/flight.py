"""What a pong confirms: the window, the ping that asks, and how long to wait for it.

At most one ping is outstanding. Its pong confirms everything sent before it. The window starts small
and follows the peer: one that takes a message a second is asked often enough to be seen taking.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.core.actions import Confirmed
from app.core.confirming import Confirming, Due
from app.core.messages import Message
from app.core.position import Pass
from app.core.queue import Entry, Queue

FIRST_WINDOW = 32
SMALLEST_WINDOW = 4
QUICK_ANSWER = 1.0
SLOW_ANSWER = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection: messages, bytes and seconds.

    `confirmed_after`: how long a peer must live on after it took a message; 0 where it answers pings,
    which is proof enough. `unproven`: how many messages may wait for that.
    """

    window: int = 256
    window_bytes: int = 1 << 20
    queue: int = 256
    queue_bytes: int = 1 << 20
    heartbeat_interval: float = 20.0
    heartbeat_patience: float = 20.0
    takes_nothing_after: float = 60.0
    ack_timeout: float = 60.0
    inbound_rate: int = 20
    confirmed_after: float = 0.0
    unproven: int = 65_536


@dataclass(slots=True)
class Pace:
    """How long, in seconds, a row may stay unconfirmed before a ping asks for it.

    A ping goes along with a row when the last one was that long ago. One for all sessions of a process, which
    lengthens it while it is busy.
    """

    confirm_after: float = 0.2
    rows_first: bool = False
    """Whether no ping goes along."""

    @contextmanager
    def burst(self) -> Iterator[None]:
        """Put rows first while very many are sent at once: the last would wait for the pongs of the first."""
        self.rows_first = True
        try:
            yield
        finally:
            self.rows_first = False


class Flight(Confirming):
    """The rows in flight on one connection whose peer answers pings."""

    __slots__ = (
        "_asked_at",
        "_asked_last_at",
        "_covered",
        "_entries",
        "_heard_at",
        "_limits",
        "_pace",
        "_progress_at",
        "_unconfirmed_since",
        "_window",
    )

    def __init__(self, limits: Limits, pace: Pace, *, for_device: bool) -> None:
        super().__init__(for_device=for_device)
        self._limits = limits
        self._pace = pace
        self._entries = Queue()
        self._window = min(FIRST_WINDOW, limits.window)
        # When the outstanding ping was sent, and how many entries were sent before it.
        self._asked_at: float | None = None
        self._asked_last_at = float("-inf")
        self._covered = 0
        self._heard_at = self._progress_at = self._unconfirmed_since = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @property
    def has_room(self) -> bool:
        """Whether one more row may be sent; a single one may be larger than the window."""
        entries = self._entries
        count = entries.count
        return not count or (count < self._window and entries.size < self._limits.window_bytes)

    def should_ask(self, now: float) -> bool:
        """Whether to ask along with what has just been sent, and not when the time comes.

        One more write costs as much as all else that a row asks of a connection.
        """
        entries = self._entries
        if self._asked_at is not None or not entries.count:
            return False
        if now - self._asked_last_at >= self._pace.confirm_after and not self._pace.rows_first:
            return True
        half_full = 2 * entries.count >= self._window
        return half_full or 2 * entries.size >= self._limits.window_bytes

    @property
    def may_ask(self) -> bool:
        """Whether there is something to ask for and no ping outstanding."""
        return self._asked_at is None and self._entries.count > 0

    @property
    def is_asking(self) -> bool:
        """Whether a ping is outstanding."""
        return self._asked_at is not None

    def begin(self, now: float) -> None:
        """Count the peer's silence from here."""
        self._heard_at = now

    def add(self, message: Message, found_by: Pass | None, now: float) -> None:
        """Note that a row is sent."""
        if not self._entries.count:
            self._unconfirmed_since = self._progress_at = now
        self._entries.add(message, found_by)

    def ask(self, now: float) -> None:
        """Note that a ping is sent; it covers everything in flight."""
        self._asked_at = self._asked_last_at = now
        self._covered = self._entries.count

    def answered(self, now: float) -> list[Confirmed]:
        """Take the pong: returns what it confirms; nothing when none was asked for."""
        taken = self._taken(now)
        if not taken:
            return []
        # What was redelivered has no place of its own.
        placed = next((entry for entry in reversed(taken) if entry[1] is not None), None)
        return [self._confirmed([message for message, _ in taken], placed)]

    def _taken(self, now: float) -> list[Entry]:
        if self._asked_at is None:
            return []
        if self._covered:
            self._adapt_window(now - self._asked_at)
        self._asked_at = None
        self._heard_at = self._progress_at = self._unconfirmed_since = now
        covered, self._covered = self._covered, 0
        return self._entries.take_up_to(covered)

    def deadline(self) -> float:
        """When to ask, or when to give the peer up."""
        waits = self._entries.count
        if self._asked_at is None:
            if waits:
                return self._unconfirmed_since + self._pace.confirm_after
            return self._heard_at + self._limits.heartbeat_interval
        if waits:
            return self._progress_at + self._limits.takes_nothing_after
        return self._asked_at + self._limits.heartbeat_patience

    def due(self, now: float) -> Due | None:
        """Say what is to be done, if anything is."""
        if now < Flight.deadline(self):  # not when something is confirmed by time, in which nothing is due
            return None
        if self._asked_at is None:
            return Due.ASK
        return Due.TOOK_NOTHING if self._entries.count else Due.SILENT

    def clear(self) -> None:
        """Forget everything: the connection has ended."""
        self._entries.clear()

    def _adapt_window(self, waited: float) -> None:
        if waited <= QUICK_ANSWER:
            self._window = min(self._window * 2, self._limits.window)
        elif waited > SLOW_ANSWER:
            self._window = max(self._window // 2, SMALLEST_WINDOW)

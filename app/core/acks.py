"""What was sent to a client that acknowledges, and is not yet settled.

    sent ──ack, of it or of a later one──▶ settled          sent ──nack──▶ refused, settled for the ack

Every sending has a sequence number; an ack of one settles all up to it. Refused rows are passed over by acks
and sent again by others (`realtime_redeliveries`). When no ack advances for a while the oldest row alone is
sent again, under a new number beside its old one; acking either settles it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from app.core import inbound
from app.core.actions import Action, Confirmed, Refused
from app.core.confirming import Confirming, Due
from app.core.flight import Limits
from app.core.messages import Message, RowKey
from app.core.position import Pass
from app.core.queue import Entry

SENT_AGAIN_AT_MOST = 3
"""How often the oldest row is sent again before its client is given up."""


class _Row:
    """One row in flight, sent once or more."""

    __slots__ = ("is_open", "may_be_sent_again", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.is_open = True
        self.may_be_sent_again = True


@dataclass(frozen=True, slots=True)
class _Settled:
    """What an ack or a nack settled: the rows `received`, and how far the reader has come by that.

    `reached` is None when that is where it was.
    """

    received: tuple[Message, ...] = ()
    reached: Entry | None = None


class Acks(Confirming):
    """The rows in flight on one connection whose client acks; pings only keep it alive."""

    __slots__ = (
        "_asked_at",
        "_heard_at",
        "_last",
        "_limits",
        "_old_numbers",
        "_progress_at",
        "_refused",
        "_sent",
        "_sent_again",
        "_size",
        "_waits_since",
    )

    takes_acks = True

    def __init__(self, limits: Limits, *, for_device: bool) -> None:
        super().__init__(for_device=for_device)
        self._limits = limits
        # Sequence numbers run on without a gap: the first is one above the last that is settled.
        self._sent: deque[tuple[_Row, Pass | None]] = deque()
        self._size = 0
        self._last = 0
        # The numbers of rows refused on this connection; and once sent again, the row by that number.
        self._refused: dict[RowKey, int] = {}
        self._old_numbers: dict[int, _Row] = {}
        self._sent_again = 0
        self._asked_at: float | None = None
        self._heard_at = self._progress_at = self._waits_since = 0.0

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Entry]:
        return ((row.message, found_by) for row, found_by in self._sent if row.is_open)

    @property
    def has_room(self) -> bool:
        """Whether one more row may be sent; a single one may be larger than the window."""
        count = len(self._sent)
        return count == 0 or (count < self._limits.window and self._size < self._limits.window_bytes)

    @property
    def is_asking(self) -> bool:
        """Whether a ping is outstanding."""
        return self._asked_at is not None

    @property
    def oldest_unacked(self) -> Message | None:
        """The oldest row that waits for an ack."""
        return self._sent[0][0].message if self._sent else None

    def begin(self, now: float) -> None:
        """Count the peer's silence from here."""
        self._heard_at = now

    def add(self, message: Message, found_by: Pass | None, now: float) -> int:
        """Note that a row is sent; returns its sequence number."""
        if not self._sent:
            self._advance(now)
        row = _Row(message)
        number = self._send(row, found_by)
        if (old := self._refused.pop(message.key, None)) is not None:
            for older, before in self._old_numbers.items():
                if before.message.key == message.key:
                    self._old_numbers[older] = row
            self._old_numbers[old] = row
            if len(self._old_numbers) > self._limits.window:
                self._old_numbers = {n: row for n, row in self._old_numbers.items() if row.is_open}
        return number

    def settle(self, said: inbound.Ack | inbound.Nack, now: float) -> list[Action] | None:
        """Take an ack or a nack; None when it is wrong, nothing when it was said before."""
        actions: list[Action] = []
        if isinstance(said, inbound.Ack):
            settled = self._acknowledge(said.number, now)
            if settled is None:
                return None
        else:
            refused = self._refuse(said.number, now)
            if refused is None:
                return None
            message, settled = refused
            # Before the position passes over it.
            actions.append(Refused(message, said.reason))
        if settled.received or settled.reached:
            actions.append(self._confirmed(settled.received, settled.reached))
        return actions

    def _acknowledge(self, number: int, now: float) -> _Settled | None:
        """Settle everything up to a number; None when it was never sent, or lies behind."""
        settled_through = self._last - len(self._sent)
        if number <= settled_through:
            if (row := self._old_numbers.pop(number, None)) is not None:
                return self._settle_one(row, now)
            return _Settled() if number == settled_through else None
        if number > self._last:
            return None
        received = []
        reached = None
        for _ in range(number - settled_through):
            row, found_by = self._take()
            if row.is_open:
                row.is_open = False
                received.append(row.message)
            if found_by is not None:
                reached = row.message, found_by
        self._advance(now)
        return _Settled(tuple(received), self._trim(now) or reached)

    def _refuse(self, number: int, now: float) -> tuple[Message, _Settled] | None:
        """Settle one row as refused; None when that number is not open."""
        settled_through = self._last - len(self._sent)
        if not settled_through < number <= self._last:
            return None
        row, _ = self._sent[number - settled_through - 1]
        if not row.is_open:
            return None
        row.is_open = False
        self._refused[row.message.key] = number
        if len(self._refused) > self._limits.window:
            del self._refused[next(iter(self._refused))]
        return row.message, _Settled((), self._trim(now))

    def send_again(self, now: float) -> tuple[Message, int] | None:
        """Note that the oldest row is sent again; returns it and its new number, None when it must not be."""
        row, _ = self._sent[0]
        self._sent_again += 1
        self._waits_since = now
        return (row.message, self._send(row, None)) if row.may_be_sent_again else None

    def keep_back(self) -> None:
        """Send nothing again that is in flight now: it may not be for this user any longer."""
        for row, _ in self._sent:
            row.may_be_sent_again = False

    def ask(self, now: float) -> None:
        """Note that a ping is sent."""
        self._asked_at = now

    def answered(self, now: float) -> list[Confirmed]:
        """Take the pong, which confirms nothing but that the peer is there."""
        self._asked_at = None
        self._heard_at = now
        return []

    def deadline(self) -> float:
        """When something is due."""
        return min(self._silence_ends(), self._patience_ends())

    def due(self, now: float) -> Due | None:
        """Say what is to be done, if anything is."""
        is_silent = now >= self._silence_ends()
        if is_silent and self._asked_at is not None:
            return Due.TOOK_NOTHING if self._sent else Due.SILENT
        if now >= self._patience_ends():
            return Due.SEND_AGAIN if self._sent_again < SENT_AGAIN_AT_MOST else Due.TOOK_NOTHING
        return Due.ASK if is_silent else None

    def clear(self) -> None:
        """Forget everything: the connection has ended."""
        self._sent.clear()
        self._refused.clear()
        self._old_numbers.clear()

    def _silence_ends(self) -> float:
        if self._asked_at is None:
            return self._heard_at + self._limits.heartbeat_interval
        if self._sent:
            # A peer that reads slowly comes to the ping last, and shows by its acks that it reads.
            return max(self._asked_at, self._progress_at) + self._limits.takes_nothing_after
        return self._asked_at + self._limits.heartbeat_patience

    def _patience_ends(self) -> float:
        return self._waits_since + self._limits.ack_timeout if self._sent else float("inf")

    def _hear(self, now: float) -> None:
        self._progress_at = self._heard_at = now

    def _advance(self, now: float) -> None:
        self._hear(now)
        self._waits_since = now
        self._sent_again = 0

    def _send(self, row: _Row, found_by: Pass | None) -> int:
        self._sent.append((row, found_by))
        self._size += len(row.message.body)
        self._last += 1
        return self._last

    def _take(self) -> tuple[_Row, Pass | None]:
        row, found_by = self._sent.popleft()
        self._size -= len(row.message.body)
        return row, found_by

    def _settle_one(self, row: _Row, now: float) -> _Settled:
        if not row.is_open:
            return _Settled()
        row.is_open = False
        return _Settled((row.message,), self._trim(now))

    def _trim(self, now: float) -> Entry | None:
        """Let go of what is settled at the front; returns the last of it that has a place.

        Only that is progress. Else a client that settles others could have the oldest sent again for ever,
        beside all its sendings before.
        """
        self._hear(now)
        reached = None
        while self._sent and not self._sent[0][0].is_open:
            self._advance(now)
            row, found_by = self._take()
            if found_by is not None:
                reached = row.message, found_by
        return reached

"""What a peer has taken and only time can confirm: rows by when they count as received.

An SSE client answers nothing, so a row counts once the stream has lived on for a while after the peer took
it. Meanwhile only keys are kept: 16 bytes each, in batches of what was taken at about the same time.
"""

from array import array
from bisect import bisect_left
from collections import deque

from app.core.actions import Confirmed
from app.core.flight import Flight, Limits, Pace
from app.core.messages import RowKey
from app.core.position import Position

BATCHES = 30
"""Into how many parts the time is divided; each is confirmed at once, that much late at most."""


class _Keys:
    """Keys of rows, in the order of their ids."""

    __slots__ = ("_ids", "_times")

    def __init__(self) -> None:
        self._ids = array("q")
        self._times = array("q")

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, more: tuple[RowKey, ...]) -> None:
        if not more:
            return
        # Rows of a later pass, or sent again, may have lower ids.
        if (self._ids and self._ids[-1] > more[0][0]) or list(more) != sorted(more):
            more = tuple(sorted((*self.all(), *more)))
            del self._ids[:], self._times[:]
        ids, times = zip(*more, strict=True)
        self._ids.extend(ids)
        self._times.extend(times)

    def all(self) -> tuple[RowKey, ...]:
        return tuple(zip(self._ids, self._times, strict=True))

    def has(self, row_id: int) -> bool:
        place = bisect_left(self._ids, row_id)
        return place < len(self._ids) and self._ids[place] == row_id


class _Batch:
    """Rows taken within one part of the time."""

    __slots__ = ("begun_at", "events", "position", "redelivered", "sync_rows", "taken_at")

    def __init__(self, now: float) -> None:
        self.begun_at = self.taken_at = now
        self.events = _Keys()
        self.sync_rows = _Keys()
        self.redelivered: tuple[RowKey, ...] = ()
        self.position: Position | None = None

    def add(self, rows: Confirmed, now: float) -> None:
        self.taken_at = now
        self.events.add(rows.events)
        self.sync_rows.add(rows.sync_rows)
        self.redelivered += rows.redelivered
        self.position = rows.position or self.position

    def confirmed(self) -> Confirmed:
        return Confirmed(self.events.all(), self.sync_rows.all(), self.position, self.redelivered)


class Unproven:
    """Rows that wait for `confirmed_after` seconds to pass, at most about `bound` of them."""

    __slots__ = ("_batches", "_bound", "_confirmed_after", "_count")

    def __init__(self, confirmed_after: float, bound: int) -> None:
        self._confirmed_after = confirmed_after
        self._bound = bound
        self._batches: deque[_Batch] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, row_id: int) -> bool:
        return any(batch.events.has(row_id) or batch.sync_rows.has(row_id) for batch in self._batches)

    @property
    def is_full(self) -> bool:
        """Whether no more may be sent until something is confirmed."""
        return self._count >= self._bound

    def add(self, rows: Confirmed, now: float) -> None:
        """Keep what the peer has taken, to be confirmed when its time has come."""
        if not self._batches or now - self._batches[-1].begun_at > self._confirmed_after / BATCHES:
            self._batches.append(_Batch(now))
        self._batches[-1].add(rows, now)
        self._count += len(rows.events) + len(rows.sync_rows)

    def due(self, now: float) -> list[Confirmed]:
        """Return what has been there for long enough, oldest first."""
        confirmed = []
        while now >= self.deadline():
            batch = self._batches.popleft()
            self._count -= len(batch.events) + len(batch.sync_rows)
            confirmed.append(batch.confirmed())
        return confirmed

    def deadline(self) -> float:
        """When something is due; infinity while nothing waits."""
        return self._batches[0].taken_at + self._confirmed_after if self._batches else float("inf")

    def clear(self) -> None:
        """Forget everything: the connection has ended."""
        self._batches.clear()
        self._count = 0


class ByTime(Flight):
    """The rows in flight to a peer that answers nothing.

    Its TCP alone says that it has taken a row. That makes room in the window, which else would let one window
    out in a minute; what is confirmed is another matter, and has a bound of its own.
    """

    __slots__ = ("_unproven",)

    def __init__(self, limits: Limits, pace: Pace, *, for_device: bool) -> None:
        super().__init__(limits, pace, for_device=for_device)
        self._unproven = Unproven(limits.confirmed_after, limits.unproven)

    def __contains__(self, row_id: object) -> bool:
        return (isinstance(row_id, int) and row_id in self._unproven) or super().__contains__(row_id)

    @property
    def has_room(self) -> bool:
        """Whether one more row may be sent."""
        return not self._unproven.is_full and super().has_room

    @property
    def unproven(self) -> int:
        """Rows that the peer took and only time will confirm."""
        return len(self._unproven)

    def answered(self, now: float) -> list[Confirmed]:
        """Note that the peer's transport has taken what was sent before it was asked."""
        for taken in super().answered(now):
            self._unproven.add(taken, now)
        return []

    def elapsed(self, now: float) -> list[Confirmed]:
        """Return what the stream has outlived."""
        return self._unproven.due(now)

    def deadline(self) -> float:
        """When to ask, when to give the peer up, or when something is confirmed."""
        return min(super().deadline(), self._unproven.deadline())

    def clear(self) -> None:
        """Forget everything: the connection has ended."""
        super().clear()
        self._unproven.clear()

"""What a reader has got so far, exact by commit (docs/decisions/0001-positions.md).

    has(s, row)  <=> row.xid < s.xmax and row.xid not in s.in_progress
    unseen(row)  <=> not has(seen, row) and not (reading and has(reading, row) and row.id <= after_id)

Snapshots are comparable only within one incarnation of the database: a crash hands xids out again.
Across incarnations `unseen` also takes whatever was created after `taken_at - overlap`.
"""

from collections.abc import Container
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from app.core.moment import microseconds
from app.core.snapshot import Snapshot


class Incarnation(NamedTuple):
    """One uninterrupted life of one database; positions of two lives share no xids.

    `system` is the cluster's system identifier (unsigned, 64 bits), `life` a digest of that, the
    database's oid, the postmaster's start time and the random id that every crash erases.
    A tuple, since two are compared with every message.
    """

    system: int
    life: str

    @staticmethod
    @lru_cache(maxsize=4)
    def of(identity: str) -> "Incarnation":
        """Build it from what the server says of itself, the system identifier first, split by `/`."""
        system = int(identity.partition("/")[0]) % (1 << 64)
        return Incarnation(system, blake2b(identity.encode(), digest_size=8).hexdigest())

    @classmethod
    def parse(cls, text: str) -> "Incarnation":
        """Read the form that `str` writes; raises ValueError for anything else."""
        system, life = text.split(".")
        if len(bytes.fromhex(life)) != 8 or not 0 <= int(system) < 1 << 64:
            raise ValueError("not an incarnation")
        return cls(int(system), life)

    def __str__(self) -> str:
        """Text for the database."""
        return f"{self.system}.{self.life}"


@dataclass(frozen=True, slots=True)
class Position:
    """What a reader has: all of `seen`, and of `reading` the rows up to `after_id`.

    `taken_at` is the database's clock when `seen` was taken. `before`: where the reader was before restarts
    that this read goes over again, as long as it lasts; it is no part of what is written of a position.
    """

    seen: Snapshot
    taken_at: datetime
    incarnation: Incarnation
    reading: Snapshot | None = None
    after_id: int = 0
    before: tuple["Position", ...] = field(default=(), compare=False, repr=False)

    def has(self, xid: int, row_id: int) -> bool:
        """Whether the reader has a row; meaningful within the position's own incarnation."""
        if self.seen.has(xid):
            return True
        return self.reading is not None and row_id <= self.after_id and self.reading.has(xid)

    def had_before_restart(self, xid: int, row_id: int, created_at: int) -> bool:
        """Whether the reader had a row, or had passed it, in an incarnation that has ended.

        One written since can have an xid of then, but neither the time (microseconds since 1970) nor an id,
        unless that is of a row which the crash took.
        """
        if self.seen.has(xid) and created_at <= microseconds(self.taken_at):
            return True
        return self.reading is not None and row_id <= self.after_id and self.reading.has(xid)

    def covers(self, other: "Position") -> bool:
        """Whether it has every row that another has; False also where that cannot be said."""
        if self.incarnation != other.incarnation or not self.seen.covers(other.seen):
            return False
        if other.reading is None or self.seen.covers(other.reading):
            return True
        return self.reading == other.reading and self.after_id >= other.after_id

    def advanced_to(self, other: "Position") -> "Position":
        """What a reader has that has both, as far as one position can say; at least the other.

        A read that gives again what was owed begins below what its reader has.
        """
        if self.incarnation != other.incarnation or not self.seen.covers(other.seen):
            return other
        return replace(other, seen=self.seen, taken_at=self.taken_at)


class Pass(NamedTuple):
    """One read in id order: from what a reader had (`seen`) to what `reading` shows.

    Both snapshots belong to `incarnation`; the times are the database's clock. `kept` is what is stored
    of a device's reader where that is more than `seen`: it is owed rows again that its position has. `before`
    is as of a position: a pass across a restart repeats rows that the reader had.
    """

    seen: Snapshot
    seen_at: datetime
    reading: Snapshot
    reading_at: datetime
    incarnation: Incarnation
    kept: Snapshot | None = None
    before: tuple[Position, ...] = ()

    def repeats(self, xid: int, row_id: int, created_at: int) -> bool:
        """Whether the reader had a row before a restart, or had passed it: younger ones have been sent."""
        return any(position.had_before_restart(xid, row_id, created_at) for position in self.before)

    def had(self, xid: int, row_id: int, through: int | None) -> bool:
        """Whether a reader has a row that has come to the row `through`, or with None to the end."""
        if self.seen.has(xid):
            return True
        return (through is None or row_id <= through) and self.reading.has(xid)

    def at(self, row_id: int) -> Position:
        """The position right after the row with this id."""
        return Position(self.seen, self.seen_at, self.incarnation, self.reading, row_id, self.before)

    def stored_at(self, row_id: int) -> Position:
        """The same as it is stored, which never goes back: what is owed again shows in the rows."""
        return Position(self.kept or self.seen, self.seen_at, self.incarnation, self.reading, row_id)

    def end(self) -> Position:
        """The position when no row of the pass is left."""
        return Position(self.reading, self.reading_at, self.incarnation)


class Lost(StrEnum):
    """Why a position cannot be resumed exactly, which the client is told."""

    NEW = "new"
    RETENTION = "retention"
    MALFORMED = "malformed"
    FUTURE = "future"
    OTHER_DATABASE = "other_database"


class Horizon(NamedTuple):
    """What the database says of itself in the snapshot of a read; `taken_at` is its clock."""

    snapshot: Snapshot
    taken_at: datetime
    incarnation: Incarnation


def lost(
    position: Position, horizon: Horizon, *, purged_through: datetime | None, ancestors: Container[int]
) -> Lost | None:
    """Tell why `position` cannot be resumed exactly, or None when it can.

    `purged_through` is the greatest delivery time that retention has removed, `ancestors` the system
    identifiers of the clusters that the rows came from, the present one among them.
    """
    if position.incarnation.system not in ancestors:
        return Lost.OTHER_DATABASE
    if purged_through is not None and position.taken_at < purged_through:
        return Lost.RETENTION
    if position.incarnation == horizon.incarnation:
        newest = position.reading or position.seen
        if newest.xmax > horizon.snapshot.xmax or position.seen.xmax > newest.xmax:
            return Lost.FUTURE
    return None

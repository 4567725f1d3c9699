"""PostgreSQL snapshots as values: which transactions a reader has.

The text form is PostgreSQL's own, `xmin:xmax:in_progress[]` (documentation, section 9.27.8
"Transaction ID and Snapshot Information Functions").
"""

from collections.abc import Iterable
from typing import NamedTuple

MAX_XID = (1 << 63) - 1
"""Above any xid a cluster reaches; as `xmax` it makes a snapshot that has everything."""


class Snapshot(NamedTuple):
    """Every transaction below `xmax` except those that were `in_progress`."""

    xmax: int
    in_progress: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> "Snapshot":
        """Read PostgreSQL's text form; raises ValueError for anything else."""
        xmin, xmax, in_progress = text.split(":")
        snapshot = cls(int(xmax), frozenset(map(int, in_progress.split(","))) if in_progress else frozenset())
        if not 0 < int(xmin) <= snapshot.xmax <= MAX_XID or snapshot.xmin < int(xmin):
            raise ValueError("not a snapshot")
        if any(xid >= snapshot.xmax for xid in snapshot.in_progress):
            raise ValueError("not a snapshot: in progress beyond xmax")
        return snapshot

    @property
    def xmin(self) -> int:
        """The lowest transaction that it may not have."""
        return min(self.in_progress, default=self.xmax)

    def __str__(self) -> str:
        """PostgreSQL's text form."""
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.in_progress)))}"

    def has(self, xid: int) -> bool:
        """Whether the transaction had committed or rolled back when the snapshot was taken."""
        return xid < self.xmax and xid not in self.in_progress

    def covers(self, other: "Snapshot") -> bool:
        """Whether it has every transaction that the other has."""
        if other.xmax > self.xmax:
            return False
        missing = self.in_progress - other.in_progress
        return not missing or min(missing) >= other.xmax

    def without(self, xids: Iterable[int]) -> "Snapshot":
        """The same snapshot, but not having these transactions."""
        taken_out = {xid for xid in xids if self.has(xid)}
        return Snapshot(self.xmax, self.in_progress | taken_out) if taken_out else self

    def lowered(self, keep: int) -> "Snapshot":
        """A snapshot that has no more than this one, with at most `keep` transactions in progress.

        It gives up the highest: what it no longer has is read again, never skipped.
        """
        if len(self.in_progress) <= keep:
            return self
        ordered = sorted(self.in_progress)
        return Snapshot(ordered[keep], frozenset(ordered[:keep]))

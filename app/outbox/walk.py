"""Walk through the rows of one read in id order, page by page, holding no transaction in between."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime

import asyncpg

from app.core.position import Horizon, Pass, Position
from app.core.reads import Interrupted, UserErased
from app.core.snapshot import Snapshot
from app.outbox.sieve import Sieve
from app.store import reads
from app.store.reads import Found, Owner, Row, Unseen

Lend = Callable[[], AbstractAsyncContextManager[asyncpg.Connection]]


@dataclass(frozen=True, slots=True)
class PageSize:
    """Bounds of a page: rows and bytes of data."""

    rows: int = 500
    data: int = 1 << 20


class Walk:
    """One read: `first` fixes its snapshot, `later` goes on until `more` is False.

    Ids are fetched ahead of the rows, a bounded number at a time, so that a read of a hundred
    thousand rows stays linear and its pages need no sort. The tail reads for all, without owner and sieve.
    """

    def __init__(
        self, lend: Lend, wanted: Unseen, owner: Owner | None, size: PageSize, sieve: Sieve | None = None
    ) -> None:
        self._lend = lend
        self._wanted = wanted
        self._owner = owner
        self._sieve = sieve
        self._size = size
        self._ids: list[int] = []
        self._ids_may_follow = False
        self._horizon: Horizon | None = None
        self.purged_through: datetime | None = None
        """What retention had removed when the last page was read: the greatest time of delivery."""

    @property
    def more(self) -> bool:
        """Whether other pages may follow."""
        return bool(self._ids) or self._ids_may_follow

    async def first(self) -> Found:
        """Read the first page; raises what the driver raises, and Unfit."""
        async with self._lend() as connection:
            found = await self._read_first(connection)
            if found is None:
                await reads.create_incarnation(connection)
                found = await self._read_first(connection)
            if found is None:
                raise Interrupted("the database restarted between two statements")
            rows = found.rows
            if self._sieve is not None:
                self._sieve.knows_of_trials = found.facts["tried"]
                rows = await self._sieve.passed(connection, rows)
        self._horizon = found.horizon
        self._ids_may_follow = found.more
        if self._wanted.reading is reads.EVERYTHING:
            self._wanted = replace(self._wanted, reading=found.horizon.snapshot)
        self._advance(found.rows)
        return found._replace(rows=rows)

    async def later(self, at_most: int | None = None) -> list[Row]:
        """Read the next page, of so many rows at most; it may be empty.

        Raises Interrupted when the database restarted, UserErased when the owner was deleted meanwhile.
        """
        async with self._lend() as connection:
            if not self._ids:
                self._ids = await reads.later_ids(connection, self._wanted, self._owner)
                self._ids_may_follow = len(self._ids) == reads.IDS_AT_ONCE
            page = self._ids[: self._size.rows if at_most is None else min(at_most, self._size.rows)]
            found = await reads.rows_by_ids(connection, page, self._owner, limit_bytes=self._size.data)
            if found is not None and self._owner is not None and found.facts["erased"]:
                raise UserErased(self._owner.user_id)
            rows = [] if found is None else found.rows
            if self._sieve is not None:
                rows = await self._sieve.passed(connection, rows)
        if found is None or self._horizon is None or found.horizon.incarnation != self._horizon.incarnation:
            raise Interrupted("the database restarted in mid-read")
        self.purged_through = found.facts["purged_through"]
        if not page:
            return []
        # The bytes may have cut the page short: whatever lies beyond the last row is asked for again.
        done = page.index(found.rows[-1][1]) + 1 if found.rows else len(page)
        self._wanted = replace(self._wanted, after_id=page[done - 1])
        self._ids = self._ids[done:]
        return rows

    async def _read_first(self, connection: asyncpg.Connection) -> Found | None:
        limit, limit_bytes = self._size.rows, self._size.data
        if self._owner is None:
            return await reads.unseen_by_tail(connection, self._wanted, limit=limit, limit_bytes=limit_bytes)
        return await reads.unseen_by_user(
            connection, self._wanted, self._owner, limit=limit, limit_bytes=limit_bytes
        )

    def _advance(self, rows: list[Row]) -> None:
        if rows:
            self._wanted = replace(self._wanted, after_id=rows[-1][1])


def all_but(found: Found, *, before: tuple[Position, ...] = ()) -> Pass:
    """The pass of a reader that has everything of the horizon but the rows found; `before` is the pass's."""
    snapshot, taken_at = found.horizon.snapshot, found.horizon.taken_at
    seen = _less(snapshot, found.facts["xids"])
    return Pass(seen, taken_at, snapshot, taken_at, found.horizon.incarnation, before=before)


def less_owed(seen: Snapshot, found: Found) -> Snapshot:
    """`seen`, less the transactions of rows found that it has: they are undelivered all the same."""
    return _less(seen, found.facts["owed_xids"])


def _less(seen: Snapshot, xids: Sequence[int]) -> Snapshot:
    lowered = seen.without(xids)
    # The list was cut: whatever lies beyond it is read again.
    return lowered.lowered(reads.XIDS_AT_ONCE) if len(xids) > reads.XIDS_AT_ONCE else lowered

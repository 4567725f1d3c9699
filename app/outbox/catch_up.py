"""What one reader has missed: everything its position has not seen, and what nobody got yet."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import asyncpg

from app.core.messages import Message, RowKey
from app.core.moment import microseconds
from app.core.position import Lost, Pass, Position, lost
from app.core.reads import Begun, Interrupted, Page, Unavailable, UserErased
from app.outbox.receipts import Receipts
from app.outbox.restraint import Restraint
from app.outbox.sieve import Sieve
from app.outbox.walk import PageSize, Walk, all_but, less_owed
from app.store import redeliveries
from app.store.database import UNREACHABLE, Database
from app.store.reads import (
    EVERYTHING,
    NOTHING,
    Found,
    Owner,
    Row,
    Unfit,
    Unseen,
    covered_undelivered,
    key,
    message,
)

TAIL_BEGINS_WITHIN = 1.0
"""Seconds that a read waits for the tail to begin, before it is taken for one that the database failed."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The table as it is read by those who catch up, a bounded number of them at a time.

    `overlap` is how far before a position's time rows are read again after a database restart.
    `receipts` know what has reached its user although the table does not say so yet. `settles`: reading may
    write down that nobody need get an event any more. `begun` is set once the tail routes what is committed
    from then on: read before that, a reader would miss what comes between. None where nobody is fed live.
    `restraint`: what a long read leaves to others.
    """

    database: Database
    turns: asyncio.Semaphore
    page: PageSize
    overlap: timedelta
    receipts: Receipts
    settles: bool = True
    begun: asyncio.Event | None = None
    restraint: Restraint = field(default_factory=Restraint)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[asyncpg.Connection]:
        """Wait for a turn and lend a connection for one page; raises Unavailable."""
        if self.begun is not None and not self.begun.is_set():
            await _until(self.begun)
        try:
            async with self.turns, self.database.driver() as connection:
                yield connection
        except (*UNREACHABLE, Unfit) as error:
            raise Unavailable(str(error) or type(error).__name__) from error

    def reader(
        self,
        user_id: str,
        *,
        takes_sync: bool,
        device_id: int | None = None,
        floor: Position | None = None,
    ) -> "CatchUp":
        """Read on behalf of one connection of this user and device.

        `floor` is what had been routed when the connection was registered: without a position of its own it
        gets everything since, whoever else has had that by the time of its read.
        """
        return CatchUp(self, user_id, takes_sync=takes_sync, device_id=device_id, floor=floor)


class CatchUp:
    """The reads of one connection, one after the other."""

    def __init__(
        self,
        archive: Archive,
        user_id: str,
        *,
        takes_sync: bool,
        device_id: int | None,
        floor: Position | None,
    ) -> None:
        self._archive = archive
        self._floor = floor
        # What is confirmed from now on was undelivered when this reader came, and is its due. Taken once:
        # by the time that a page is looked at, these may be written, and the page may not know it.
        self._arrived = archive.receipts.unwritten_of(user_id)
        self._user_id = user_id
        self._takes_sync = takes_sync
        self._device_id = device_id
        self._rests_until = 0.0
        self._walk: Walk | None = None
        self._sieve: Sieve | None = None
        self._skip: Callable[[Row], bool] = _nothing
        self._repeats: Callable[[Row], bool] = _nothing
        # When what the read under way began with was taken; None when nothing need be told of retention.
        self._seen_at: datetime | None = None

    async def start(self, position: Position | None, *, with_undelivered: bool) -> Begun:
        """Begin a read of what `position` has not seen.

        Raises UserErased, Interrupted, and Unavailable while the database is away.
        """
        if position is None:
            return await self._undelivered(Lost.NEW)
        wanted = Unseen(position.seen, position.reading or EVERYTHING, position.after_id)
        found = await self._read(wanted, with_undelivered=with_undelivered)
        reason = lost(
            position,
            found.horizon,
            purged_through=found.facts["purged_through"],
            ancestors=found.facts["ancestors"],
        )
        if reason in {Lost.OTHER_DATABASE, Lost.FUTURE}:
            return await self._undelivered(reason)
        if position.incarnation != found.horizon.incarnation:
            return await self._across_incarnations(position, reason, with_undelivered=with_undelivered)
        found = self._leave_out(found, lambda row: position.has(row[2], row[1]) and self._has_arrived(row))
        # Nobody knows when a `reading` of long ago was taken; the earlier time only means more care.
        first = Pass(
            less_owed(position.seen, found),
            position.taken_at,
            position.reading or found.horizon.snapshot,
            position.taken_at if position.reading else found.horizon.taken_at,
            found.horizon.incarnation,
            kept=position.seen,
            before=position.before,
        )
        return self._begun(first, found, reason, partial=position.reading is not None)

    async def proven(self, position: Position) -> tuple[tuple[RowKey, ...], tuple[RowKey, ...]]:
        """List undelivered events and sync rows that a client's own position covers: it has them.

        No more can be than a connection may have sent and not seen confirmed. What its reads have passed over
        is settled instead, and what it refused is left to be sent again. Raises Unavailable.
        """
        refused = self._archive.receipts.unwritten_refusals(self._device_id)
        owner = Owner(self._user_id, self._takes_sync, with_undelivered=True, device_id=self._device_id)
        async with self._archive.lend() as connection:
            covered = await covered_undelivered(connection, position, owner)
            passed = await Sieve(Unseen(NOTHING), owner, settles=True).passed(connection, covered)
        rows = [row for row in passed if key(row) not in refused]
        events = tuple(key(row) for row in rows if row[0] == "e")
        return events, tuple(key(row) for row in rows if row[0] == "s")

    async def due(self, limit: int) -> list[Message]:
        """List what the reader refused and is to be sent again by now, which its reads leave out.

        After a read. Raises Unavailable.
        """
        sieve = self._sieve
        if sieve is None or not sieve.knows_of_trials:
            return []
        async with self._archive.lend() as connection:
            rows = await redeliveries.due(connection, self._user_id, self._device_id, limit=limit)
            return [message(row) for row in await sieve.visible(connection, rows)]

    async def next_page(self) -> Page:
        """Go on with the read; raises Interrupted when it must begin again, UserErased, and Unavailable."""
        if self._walk is None:
            raise Interrupted("no read is under way")
        restraint, began = self._archive.restraint, time.monotonic()
        if began < self._rests_until:
            await restraint.wait(self._rests_until - began)
            began = time.monotonic()
        rows = await self._walk.later(restraint.part)
        ended = time.monotonic()
        self._rests_until = ended + restraint.rest(ended - began)
        purged_through, seen_at = self._walk.purged_through, self._seen_at
        if seen_at is None or purged_through is None or purged_through <= seen_at:
            return self._page(rows)
        self._seen_at = None  # told once
        return replace(self._page(rows), lost=Lost.RETENTION)

    async def _undelivered(self, reason: Lost) -> Begun:
        """What nobody got yet, and what came since the floor: due to a reader without a usable position."""
        floor = self._floor
        if floor is not None:
            found = await self._read(Unseen(floor.seen), with_undelivered=True)
        if floor is None or floor.incarnation != found.horizon.incarnation:
            floor = None
            found = await self._read(Unseen(EVERYTHING), with_undelivered=True)
        found = self._leave_out(
            found, lambda row: (floor is None or floor.has(row[2], row[1])) and self._has_arrived(row)
        )
        return self._begun(all_but(found), found, reason)

    async def _across_incarnations(
        self, position: Position, reason: Lost | None, *, with_undelivered: bool
    ) -> Begun:
        since = position.taken_at - self._archive.overlap
        found = await self._read(Unseen(position.seen, since=since), with_undelivered=with_undelivered)
        found = self._leave_out(found, _AlreadyRead(position, microseconds(since)).covers)
        return self._begun(all_but(found, before=(*position.before, position)), found, reason)

    async def _read(self, wanted: Unseen, *, with_undelivered: bool) -> Found:
        owner = Owner(self._user_id, self._takes_sync, with_undelivered, self._device_id)
        self._skip = self._repeats = _nothing
        self._sieve = Sieve(wanted, owner, settles=self._archive.settles)
        self._walk = Walk(self._archive.lend, wanted, owner, self._archive.page, self._sieve)
        found = await self._walk.first()
        if found.facts["erased"]:
            raise UserErased(self._user_id)
        return found

    def _begun(self, first: Pass, found: Found, reason: Lost | None, *, partial: bool = False) -> Begun:
        self._seen_at = None if reason is Lost.RETENTION else first.seen_at
        if first.before:
            self._repeats = lambda row: first.repeats(row[2], row[1], row[6])
        page = self._page(found.rows)
        return Begun(first, page, partial, reason, found.facts["revoked_before"], found.facts["generation"])

    def _leave_out(self, found: Found, skip: Callable[[Row], bool]) -> Found:
        """Pass over some rows of the read, on this page and on those that follow."""
        self._skip = skip
        return found._replace(rows=[row for row in found.rows if not skip(row)])

    def _has_arrived(self, row: Row) -> bool:
        return key(row) in self._arrived

    def _page(self, rows: list[Row]) -> Page:
        wanted = [
            message(row)._replace(redelivered=True) if self._repeats(row) else message(row)
            for row in rows
            if not self._skip(row)
        ]
        if self._sieve is not None and self._sieve.again:
            again = self._sieve.again
            wanted = [one._replace(redelivered=True) if one.id in again else one for one in wanted]
        return Page(wanted, self._walk is not None and self._walk.more)


async def _until(begun: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(TAIL_BEGINS_WITHIN):
            await begun.wait()
    except TimeoutError as error:
        raise Unavailable("the tail has not read yet") from error


def _nothing(_: Row) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _AlreadyRead:
    """What a reader cut in mid-read had of its pass, in an incarnation that has ended since."""

    position: Position
    since: int

    def covers(self, row: Row) -> bool:
        reading = self.position.reading
        return (
            reading is not None
            and row[1] <= self.position.after_id
            and row[6] < self.since
            and reading.has(row[2])
        )

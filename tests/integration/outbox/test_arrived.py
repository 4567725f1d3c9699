"""What had reached its user when a reader came is not read for it again, whenever that is written down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from app.outbox.catch_up import Archive, CatchUp
from app.outbox.receipts import Receipts
from app.outbox.walk import PageSize
from app.store.database import Database as Pool
from app.store.database import address
from tests.integration.outbox.test_receipts import Writing, events_of, ids_of
from tests.support.postgres import Database

pytestmark = pytest.mark.every_major

PAGE = PageSize(rows=10)


class Overtaken(Pool):
    """A pool whose every statement is overtaken: before its answer is looked at, receipts are written."""

    receipts: Receipts

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        async with super().driver() as connection:
            yield connection
        await self.receipts.flush()


@pytest.fixture
async def overtaken(database: Database) -> AsyncIterator[Archive]:
    """An archive that is read while receipts are being written."""
    writing, pool = Writing(database.url), Overtaken(address(database.url), size=2)
    pool.receipts = writing.receipts
    yield Archive(pool, asyncio.Semaphore(2), PAGE, timedelta(seconds=300), writing.receipts)
    await pool.close()
    await writing.pool.close()


async def everything(reader: CatchUp, begun_with: list[int], *, more: bool) -> list[int]:
    ids = begun_with
    while more:
        page = await reader.next_page()
        ids += [message.id for message in page.messages]
        more = page.more
    return ids


@pytest.mark.parametrize("has_position", [True, False])
async def test_receipts_written_while_it_reads_change_nothing(
    host: asyncpg.Connection, overtaken: Archive, has_position: bool
) -> None:
    """On the first page as on those that follow."""
    rows = await events_of(host, "u", 25)
    begun = await overtaken.reader("nobody", takes_sync=False).start(None, with_undelivered=False)
    position = begun.first.end() if has_position else None
    overtaken.receipts.add("u", rows[3:22], ())

    reader = overtaken.reader("u", takes_sync=False)
    begun = await reader.start(position, with_undelivered=True)
    read = await everything(reader, [each.id for each in begun.page.messages], more=begun.page.more)

    assert overtaken.receipts.unwritten == 0
    assert read == ids_of((*rows[:3], *rows[22:]))


async def test_what_arrives_after_it_came_is_its_due_all_the_same(
    host: asyncpg.Connection, overtaken: Archive
) -> None:
    """Another connection of the user confirms a row that this one is about to read."""
    rows = await events_of(host, "u", 25)
    reader = overtaken.reader("u", takes_sync=False)
    begun = await reader.start(None, with_undelivered=True)
    overtaken.receipts.add("u", rows, ())
    read = await everything(reader, [each.id for each in begun.page.messages], more=begun.page.more)
    assert read == ids_of(rows)

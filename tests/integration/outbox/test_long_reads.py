"""A reader that has missed very much takes it in small parts, and rests between them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg

from app.outbox.catch_up import Archive
from app.outbox.restraint import LONGEST_REST, PART
from app.outbox.walk import PageSize
from app.store.database import Database as Pool
from app.store.database import address
from tests.integration.outbox.test_receipts import Writing, events_of
from tests.support.postgres import Database

PAGE = PageSize(rows=2 * PART)


class Slow(Pool):
    """A pool whose every page takes so long that the longest rest is due, however busy the machine is."""

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        async with super().driver() as connection:
            await connection.execute("SELECT pg_sleep($1)", LONGEST_REST)
            yield connection


async def test_after_the_first_page_come_parts_with_a_rest_after_each(
    database: Database, host: asyncpg.Connection
) -> None:
    """Nobody else waits for long, and nothing is left out."""
    ids = await events_of(host, "u", 2 * PART + 2 * PART + 1)
    rests: list[float] = []

    async def resting(seconds: float) -> None:
        rests.append(seconds)

    writing, pool = Writing(database.url), Slow(address(database.url), size=2)
    overlap = timedelta(seconds=300)
    archive = Archive(pool, asyncio.Semaphore(1), PAGE, overlap, writing.receipts, wait=resting)
    reader = archive.reader("u", takes_sync=False)
    page = (await reader.start(None, with_undelivered=True)).page
    pages = [page]
    while page.more:
        page = await reader.next_page()
        pages.append(page)
    await pool.close()
    await writing.pool.close()

    assert [message.id for page in pages for message in page.messages] == list(ids)
    assert [len(page.messages) for page in pages] == [2 * PART, PART, PART, 1]
    assert len(rests) == 2
    assert all(0 < seconds <= LONGEST_REST for seconds in rests)

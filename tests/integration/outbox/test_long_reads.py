"""A reader that has missed very much takes it in small parts, and rests between them."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg

from app.outbox.catch_up import Archive
from app.outbox.restraint import UNRESTRAINED, Restraint
from app.outbox.walk import PageSize
from app.store.database import Database as Pool
from app.store.database import address
from tests.integration.outbox.test_receipts import Writing, events_of, ids_of
from tests.support.postgres import Database

PART = 3
PAGE = PageSize(rows=2 * PART)
HOUR = 3600.0
OVERLAP = timedelta(seconds=300)


async def pages_of(database: Database, restraint: Restraint) -> list[list[int]]:
    """Read whatever the user has, page by page."""
    writing, pool = Writing(database.url), Pool(address(database.url), size=2)
    archive = Archive(pool, asyncio.Semaphore(1), PAGE, OVERLAP, writing.receipts, restraint=restraint)
    reader = archive.reader("u", takes_sync=False)
    pages = [(await reader.start(None, with_undelivered=True)).page]
    while pages[-1].more:
        pages.append(await reader.next_page())
    await pool.close()
    await writing.pool.close()
    return [[message.id for message in page.messages] for page in pages]


async def test_after_the_first_page_come_parts_with_a_rest_after_each(
    database: Database, host: asyncpg.Connection
) -> None:
    """Nobody else waits for long, and nothing is left out."""
    ids = ids_of(await events_of(host, "u", 4 * PART + 1))
    rests: list[float] = []

    async def resting(seconds: float) -> None:
        rests.append(seconds)

    # So long a rest is due whatever the reader does meanwhile.
    restraint = Restraint(part=PART, rests=HOUR / 1e-6, longest=HOUR, wait=resting)
    pages = await pages_of(database, restraint)

    assert pages == [ids[: 2 * PART], ids[2 * PART : 3 * PART], ids[3 * PART : 4 * PART], ids[4 * PART :]]
    assert len(rests) == 2
    assert all(0 < seconds <= HOUR for seconds in rests)


async def test_an_answer_comes_in_whole_pages_and_without_a_rest(
    database: Database, host: asyncpg.Connection
) -> None:
    """Somebody waits for it."""
    ids = ids_of(await events_of(host, "u", 5 * PART))

    rests: list[float] = []

    async def resting(seconds: float) -> None:
        rests.append(seconds)

    pages = await pages_of(database, replace(UNRESTRAINED, longest=HOUR, wait=resting))

    assert rests == []
    assert pages == [ids[: 2 * PART], ids[2 * PART : 4 * PART], ids[4 * PART :]]

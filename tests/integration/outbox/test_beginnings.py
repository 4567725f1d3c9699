"""Clients connect to a process whose tail has not read yet, since the database failed it or is slow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from app.core.reads import Unavailable
from app.core.session import Phase
from app.outbox.tail import Timing
from app.store.database import Database as Pool
from app.store.database import address
from tests.integration.outbox.conftest import StartRig
from tests.support.host import publish
from tests.support.postgres import Database
from tests.support.service import NO_SWEEP, Knobs, Rig, until

pytestmark = pytest.mark.every_major

LONG_ENOUGH = 0.3
"""Seconds in which a connection reads, where it may."""


class Late(Pool):
    """A pool that lends nothing before it is told to."""

    def __init__(self, url: str) -> None:
        super().__init__(address(url), size=1)
        self.may_lend = asyncio.Event()

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        await self.may_lend.wait()
        async with super().driver() as connection:
            yield connection


@pytest.fixture
async def late(database: Database) -> AsyncIterator[Late]:
    """Where a tail reads that begins late."""
    pool = Late(database.url)
    yield pool
    await pool.close()


@pytest.fixture
async def rig(database: Database, late: Late) -> AsyncIterator[Rig]:
    """One whose tail begins late; it is being started."""
    rig = Rig(database.url, Knobs(), tail_pool=late)
    starting = asyncio.create_task(rig.start())
    await until(lambda: rig.listener.echoed_at)
    yield rig
    starting.cancel()
    await rig.stop()


async def test_who_came_before_the_tail_began_gets_everything_in_order(
    host: asyncpg.Connection, rig: Rig, late: Late
) -> None:
    """What is committed after its read and before the tail's first snapshot would come late, or never."""
    peer = rig.connect("ann", position="")
    with contextlib.suppress(TimeoutError):
        await until(lambda: peer.control, within=LONG_ENOUGH)
    older = [await publish(host, "ann", "story") for _ in range(2)]
    late.may_lend.set()
    await until(lambda: rig.tail.read_at)
    younger = await publish(host, "ann", "story")
    await rig.settled()

    assert peer.ids == [*older, younger]
    assert peer.connection is not None
    assert peer.connection.session.phase is Phase.LIVE


async def test_a_request_does_not_wait_for_a_tail_that_cannot_begin(rig: Rig) -> None:
    """It is answered as when the database is away, which is why the tail cannot."""
    reader = rig.archive.reader("ann", takes_sync=False)

    with pytest.raises(Unavailable):
        await reader.start(None, with_undelivered=True)


async def test_who_comes_before_anything_was_routed_gets_all_that_is_written_from_then_on(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Also what another connection of the user has confirmed by the time that it reads."""
    rig = await start_rig(database.url, timing=Timing(sweep=NO_SWEEP, lease=None), listens=False)
    async with contextlib.AsyncExitStack() as turns:
        for _ in range(8):
            await turns.enter_async_context(rig.archive.turns)
        peer = rig.connect("ann")
        row_id = await publish(host, "ann", "story")
        await host.execute("UPDATE realtime_events SET delivered = true, delivered_at = now()")
    await rig.settled()

    assert peer.ids == [row_id]

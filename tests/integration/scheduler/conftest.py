"""Services in this process whose jobs run only when a test says so, and pools like theirs."""

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from app.bootstrap.service import Service
from app.settings import Settings
from app.store.database import Database as Pool
from app.store.database import address
from tests.support.postgres import Database

StartService = Callable[..., Awaitable[Service]]

SELDOM = {
    f"{job}_interval": 86400.0 for job in ("stale", "beat", "bells", "triggers", "erase", "housekeeping")
}


@pytest.fixture
async def host(database: Database) -> asyncpg.Connection:
    """A connection as the host's."""
    return await database.connect()


@pytest.fixture
async def new_pool(database: Database) -> AsyncIterator[Callable[[], Pool]]:
    """Make pools of the service's kind; each stands for a process."""
    made: list[Pool] = []

    def make() -> Pool:
        made.append(Pool(address(database.url), size=5))
        return made[-1]

    yield make
    for pool in made:
        await pool.close()


@pytest.fixture
async def pool(new_pool: Callable[[], Pool]) -> Pool:
    """The pool of one process."""
    return new_pool()


@pytest.fixture
async def start_service(database: Database) -> AsyncIterator[StartService]:
    """Start services with settings; those not told how often leave their jobs to the test."""
    made: list[Service] = []

    async def start(**settings: float | str) -> Service:
        made.append(Service(Settings(database_url=database.url, **{**SELDOM, **settings})))
        await made[-1].start()
        return made[-1]

    yield start
    for service in made:
        await service.stop()

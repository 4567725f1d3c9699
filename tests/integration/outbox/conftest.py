"""Rigs on a test's database."""

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from tests.support.postgres import Database
from tests.support.service import Knobs, Rig

StartRig = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def host(database: Database) -> asyncpg.Connection:
    """A connection as the host's."""
    return await database.connect()


@pytest.fixture
async def start_rig() -> AsyncIterator[StartRig]:
    """Start rigs: `await start(url, …)` with the knobs of `Knobs`; stopped after the test."""
    made: list[Rig] = []

    async def start(url: str, *, listen_url: str | None = None, **knobs: object) -> Rig:
        made.append(Rig(url, Knobs(**knobs), listen_url=listen_url))
        await made[-1].start()
        return made[-1]

    yield start
    for rig in made:
        await rig.stop()

"""Services for the scenarios, with small windows and pages, so that every seam is come to; and their apps."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.e2e.conformance.apps import WINDOW, App, Gone
from tests.e2e.test_devices import register
from tests.support.postgres import Database
from tests.support.server import Server

SETTINGS: dict[str, Any] = {
    "window": WINDOW,
    "queue": 64,
    "catch_up_page": 50,
    "sse_heartbeat_interval": 0.5,
    "nack_pause": 0.1,
}

Enroll = Callable[..., Awaitable[App]]


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Of the module's service."""
    return SETTINGS


@pytest.fixture
async def enroll(server: Server) -> AsyncIterator[Enroll]:
    """Make an app of a user on a device of its own, registered with the module's service."""
    made: list[App] = []

    async def make(
        transport: type[App], user: str, *, at: Server = server, platform: str = "ios", seed: int = 0
    ) -> App:
        token = f"{transport.name} {len(made)} {user}"
        await register(at, user, token, platform)
        made.append(transport(user, token, seed=seed))
        return made[-1]

    yield make
    for app in made:
        with contextlib.suppress(Gone, AssertionError):
            await app.vanish()


@pytest.fixture
async def hosts(house: Database) -> AsyncIterator[Database]:
    """The module's database, for hosts that connect to it within one test."""
    database = Database(house.cluster, house.name)
    yield database
    await database.close()

"""A device that is back before it is written down what it had."""

from typing import Any

import asyncpg
import pytest

from tests.e2e.acks.acking import ack, states
from tests.e2e.conftest import Connect, Eventually
from tests.e2e.test_devices import register
from tests.support import host as app
from tests.support.server import Server


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Of this module's service: receipts are written seldom."""
    return {"receipts_interval": 3.0}


async def test_what_it_acknowledged_does_not_come_again(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """Nor when it comes twice; and its position is written in the end."""
    user = await app.add_user(host)
    device = await register(server, user, f"phone {user}", "ios")
    client = await connect(server, user, device_token=f"phone {user}", ack="1")
    await app.log_moods(host, [user], 5)
    await client.got(5)
    await ack(client, 5)
    await client.ask()
    await client.vanish()
    assert await states(host, device["id"]) == ["pending"] * 5

    for _ in range(2):
        client = await connect(server, user, device_token=f"phone {user}", ack="1")
        await client.ask()
        await client.vanish()
        assert client.ids == []

    async def written() -> bool:
        return await states(host, device["id"]) == ["received"] * 5

    await eventually(written)

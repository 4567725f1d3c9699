"""A client that is back before it is written down what it had, and what it could not process."""

from typing import Any

import asyncpg
import pytest

from tests.e2e.acks.acking import ack, nack, settled, states, told
from tests.e2e.conftest import Connect, Eventually
from tests.e2e.test_devices import register
from tests.support import host as app
from tests.support.server import Server


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Of this module's service: receipts are written seldom, and what was refused comes soon after that."""
    return {"receipts_interval": 3.0, "nack_pause": 0.1}


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


@pytest.mark.parametrize("with_device", [True, False], ids=["device", "no device"])
async def test_what_it_refused_comes_again_although_its_position_is_beyond(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually, with_device: bool
) -> None:
    """A position proves what it covers, and not what was refused there; that it is to come is written later."""
    user = await app.add_user(host)
    query = {"device_token": f"phone {user}"} if with_device else {}
    if with_device:
        await register(server, user, f"phone {user}", "ios")
    client = await connect(server, user, ack="1", position="", **query)
    await app.log_moods(host, [user], 3)
    _, refused, last = await client.got(3)
    await nack(client, 2, "no room")
    await ack(client, 3)
    await client.ask()
    await client.vanish()

    client = await connect(server, user, ack="1", position=last["position"], **query)
    await client.got(1)

    assert told(client) == [(refused["id"], 1, True)]
    await ack(client, 1)
    await settled(host, eventually, user)

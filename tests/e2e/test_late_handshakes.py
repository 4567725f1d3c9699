"""A handshake that its client gave up ends no connection that the client has made elsewhere since."""

import asyncio
from urllib.parse import urlencode

import asyncpg
import pytest

from tests.e2e.conftest import Eventually, StartServer
from tests.e2e.test_devices import register
from tests.integration.outbox.proxy import proxy_to
from tests.support import host as app
from tests.support import stream
from tests.support.client import Address, Client, open_client
from tests.support.postgres import Database
from tests.support.roles import role_names

GENERATION = "SELECT generation FROM users_devices WHERE user_id = $1"


async def connect(transport: str, address: Address, **who: str) -> Client | stream.Stream:
    """Connect by one of the transports."""
    if transport == "websocket":
        return await open_client(address, None, **who)
    return await stream.request(address, f"{stream.PATH}?{urlencode(who)}")


@pytest.mark.parametrize("transport", ["websocket", "server-sent events"])
async def test_a_handshake_that_comes_late_to_the_database_replaces_nobody(
    house: Database,
    start_server: StartServer,
    host: asyncpg.Connection,
    eventually: Eventually,
    transport: str,
) -> None:
    """The path of one process to the database stalls, the client goes to another, and the path goes on."""
    async with proxy_to(str(house.cluster.socket_dir / f".s.PGSQL.{house.cluster.port}")) as path:
        role = role_names(house)[1]
        slow = start_server(f"postgresql://{role}@127.0.0.1:{path.port}/{house.name}")
        quick = start_server(house.url)
        await slow.healthy()
        await quick.healthy()
        user = await app.add_user(host)
        await register(quick, user, f"phone {user}", "ios")
        who = {"user_id": user, "device_token": f"phone {user}"}

        path.stall()
        given_up = asyncio.create_task(connect(transport, slow.address, **who))
        await asyncio.sleep(1.0)  # nobody tells when it is on its way to the database
        given_up.cancel()
        good = await connect(transport, quick.address, **who)
        await good.until(lambda inbox: inbox.messages)
        generation = await host.fetchval(GENERATION, user)
        path.go_on()
        await slow.healthy()

        async def nothing_is_under_way() -> bool:
            return not await host.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%users_devices%'"
                " AND state <> 'idle' AND pid <> pg_backend_pid()"
            )

        await eventually(nothing_is_under_way)
        await app.publish(host, user, "still here")
        await good.until(lambda inbox: inbox.end is not None or inbox.messages[-1]["type"] == "still here")
        assert good.end is None
        assert await host.fetchval(GENERATION, user) == generation
        await good.vanish()

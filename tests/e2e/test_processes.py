"""Several processes share nothing but PostgreSQL: each connection gets each event once, whoever serves it."""

import asyncio
import os
import signal

import asyncpg
import pytest

from tests.e2e.conftest import Connect, Eventually, StartServer
from tests.support import host as app
from tests.support.client import Client, open_client
from tests.support.postgres import Database
from tests.support.server import Server


async def test_two_workers_are_two_processes_that_both_deliver(
    house: Database,
    host: asyncpg.Connection,
    start_server: StartServer,
    connect: Connect,
    eventually: Eventually,
) -> None:
    """One user on both: each connection gets each event once and in order; a killed worker is replaced."""
    server = start_server(house.url, workers=2)
    await server.ready()
    user = await app.add_user(host)
    rivals = "SELECT pid, (stats->>'connections')::int FROM realtime_processes WHERE pid = ANY($1::int[])"

    async def both_have_started() -> bool:
        pids = [worker.pid for worker in server.workers]
        return len(await host.fetch(rivals, pids)) == 2

    await eventually(both_have_started)
    clients: list[Client] = []

    async def both_are_used() -> bool:
        if len(clients) < 18:
            clients.append(await connect(server, user))
        places = await host.fetch(rivals, [worker.pid for worker in server.workers])
        return len(places) == 2 and all(place["int4"] for place in places)

    await eventually(both_are_used)
    for _ in range(10):
        await app.log_moods(host, [user], 10)
    for client in clients:
        assert [event["data"]["mood_score"] for event in await client.got(100)] == [*range(1, 11)] * 10

    first, second = server.workers
    os.kill(first.pid, signal.SIGKILL)

    async def replaced() -> bool:
        workers = server.workers
        return len(workers) == 2 and second in workers and first not in workers

    await eventually(replaced)
    stayed = [client for client in clients if client.close_code is None]
    assert 0 < len(stayed) < len(clients)
    await app.log_mood(host, user, 11)
    for client in stayed:
        await client.got(101)
        await client.ask()
        assert len(client.ids) == len(set(client.ids)) == 101
    assert (await server.stop())[0] == 0


async def test_two_services_and_one_of_them_killed(
    house: Database,
    host: asyncpg.Connection,
    start_server: StartServer,
    connect: Connect,
    eventually: Eventually,
) -> None:
    """The other goes on; the dead one's clients return to it and have missed nothing."""
    dying, staying = start_server(house.url), start_server(house.url)
    await asyncio.gather(dying.ready(), staying.ready())
    user = await app.add_user(host)
    device = {"user_id": user, "device_token": f"t {user}", "platform": "ios"}
    assert (await dying.request("POST", "/realtime/devices", json=device)).status_code == 201
    moving = await connect(dying, user, device_token=f"t {user}")
    steady = await connect(staying, user)
    stop = asyncio.Event()

    async def write() -> int:
        score = 0
        writer = await asyncpg.connect(house.url)
        while not stop.is_set():
            score += 1
            await app.log_mood(writer, user, score)
        await app.log_mood(writer, user, 0)
        await writer.close()
        return score + 1

    writing = asyncio.create_task(write())
    await moving.got(100)
    dying.kill()
    await moving.ended()
    await steady.got(300)
    returned = await connect(staying, user, device_token=f"t {user}")
    await returned.got(100)
    stop.set()
    written = await writing

    for client in (steady, returned):
        await client.until(lambda one: one.events and one.events[-1]["data"].get("mood_score") == 0)
        await client.ask()
        assert len(client.ids) == len(set(client.ids))
        assert client.ids == sorted(client.ids)
    assert len(steady.ids) == written
    assert set(moving.ids) | set(returned.ids) == set(steady.ids)
    assert (await staying.health())["status"] == "healthy"


async def test_a_process_that_ends_takes_its_row_away(
    house: Database, host: asyncpg.Connection, start_server: StartServer, eventually: Eventually
) -> None:
    """`realtime_processes` says who lives."""
    server = start_server(house.url)
    await server.ready()
    known = "SELECT count(*) FROM realtime_processes WHERE pid = $1"

    async def is_known() -> bool:
        return await host.fetchval(known, server.process.pid) == 1

    await eventually(is_known)
    assert (await server.stop())[0] == 0

    assert await host.fetchval(known, server.process.pid) == 0


@pytest.mark.parametrize("arguments", [("--loop", "asyncio", "--http", "h11")], ids=["as installed"])
async def test_it_works_on_uvicorn_without_its_extras(
    house: Database,
    host: asyncpg.Connection,
    start_server: StartServer,
    connect: Connect,
    arguments: tuple[str, ...],
) -> None:
    """The standard event loop and the pure parser, whatever else is on this machine."""
    server: Server = start_server(house.url, *arguments)
    await server.ready()
    user = await app.add_user(host)
    await app.log_moods(host, [user], 600)
    client = await connect(server, user)
    await app.log_mood(host, user, 601)

    assert [event["data"]["mood_score"] for event in await client.got(601)] == list(range(1, 602))
    status, _ = await server.stop()
    assert status == 0
    assert await client.ended() == 1001


async def test_a_user_s_connections_are_limited_over_all_processes(
    house: Database,
    start_server: StartServer,
    host: asyncpg.Connection,
    connect: Connect,
    eventually: Eventually,
) -> None:
    """Roughly: what one process has counts at the other once it has told so, and no longer when it is gone."""
    limit = {"connections_per_user": 4, "beat_interval": 0.1}
    one, other = start_server(house.url, **limit), start_server(house.url, **limit)
    await one.ready()
    await other.ready()
    first = [await connect(one, "ada") for _ in range(3)]

    async def refused() -> bool:
        client = await open_client(other.address, user_id="ada")
        await client.until(lambda this: this.messages)
        told = client.messages[0]
        if told["type"] == "connected":
            await client.close()
            return False
        assert (told["code"], told["after_ms"]) == ("too_many_connections", 5000)
        return await client.ended() == 4429

    held = await connect(other, "ada")
    await eventually(refused)
    bob = await connect(other, "bob")
    for client in first:
        await client.close()

    async def let_in() -> bool:
        return not await refused()

    await eventually(let_in)
    assert held.close_code is None
    assert bob.messages[0]["type"] == "connected"

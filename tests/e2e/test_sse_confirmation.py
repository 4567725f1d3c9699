"""An SSE client answers nothing: an event has arrived when the stream lived on, and not a moment before."""

import asyncio
import signal
from typing import Any

import asyncpg
import pytest

from app.core.token import decode
from tests.e2e.conftest import Connect, Eventually, Listen, StartServer
from tests.support import host as app
from tests.support import stream
from tests.support.postgres import Database
from tests.support.server import Server

UNMARKED = "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND NOT delivered"
LIVED_ON = 3.0
"""Seconds."""
DRAIN = 2.0


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """A life short enough for a test."""
    return {"sse_confirmed_after": LIVED_ON, "stale_after": 1, "stale_interval": 0.2}


async def test_an_event_is_marked_when_its_stream_has_lived_on(
    server: Server, host: asyncpg.Connection, listen: Listen, eventually: Eventually
) -> None:
    """Not before, and it is not sent again meanwhile, however stale it looks."""
    user = await app.add_user(host)
    client = await listen(server, user)
    await app.log_moods(host, [user], 5)
    await client.got(5)

    async def all_are_marked() -> bool:
        return await host.fetchval(UNMARKED, user) == 0

    await eventually(all_are_marked)

    took = await host.fetchval(
        "SELECT extract(epoch FROM min(delivered_at) - max(created_at))::float8"
        " FROM realtime_events WHERE user_id = $1",
        user,
    )
    assert took >= LIVED_ON
    assert len(client.ids) == 5


async def test_what_a_stream_got_that_did_not_live_on_comes_again(
    server: Server, host: asyncpg.Connection, listen: Listen
) -> None:
    """To whoever comes without a position: nobody knows what was read."""
    user = await app.add_user(host)
    first = await listen(server, user)
    await app.log_moods(host, [user], 5)
    await first.got(5)
    await first.vanish()

    again = await listen(server, user)

    assert [event["id"] for event in await again.got(5)] == first.ids


async def test_what_a_peer_has_not_acknowledged_is_not_marked_however_long_it_lives(
    server: Server, host: asyncpg.Connection, listen: Listen, eventually: Eventually
) -> None:
    """It reads a little, so that the connection lives: what it had is marked, what lies in buffers is not."""
    user = await app.add_user(host)
    slow = await listen(server, user, receive_buffer=4096)
    slow.pause()
    for _ in range(40):
        await app.publish(host, user, "large", text="x" * 60_000)
    last = await app.log_mood(host, user)
    assert last

    other = await app.add_user(host)
    watch = await listen(server, other)
    await app.log_mood(host, other)
    await watch.got(1)

    async def the_others_is_marked() -> bool:
        return await host.fetchval(UNMARKED, other) == 0

    await eventually(the_others_is_marked)
    assert await host.fetchval(UNMARKED, user) > 30
    assert not slow.ended
    slow.resume()
    await slow.got(41)
    assert slow.ids == sorted(set(slow.ids))

    async def all_are_marked() -> bool:
        return await host.fetchval(UNMARKED, user) == 0

    await eventually(all_are_marked)


async def test_a_devices_position_moves_when_its_stream_has_lived_on(
    server: Server, host: asyncpg.Connection, listen: Listen, eventually: Eventually
) -> None:
    """So a phone that forgets its last id goes on where it was."""
    user = await app.add_user(host)
    device = {"user_id": user, "device_token": f"t {user}", "platform": "ios"}
    assert (await server.request("POST", "/realtime/devices", json=device)).status_code == 201
    first = await listen(server, user, device_token=f"t {user}")
    await app.log_moods(host, [user], 3)
    await app.queue_sync(host, user)
    await first.got(4)

    async def is_stored() -> bool:
        stored = "SELECT position_seen IS NOT NULL FROM users_devices WHERE user_id = $1"
        synced = "SELECT bool_and(synced) FROM sync_queue WHERE user_id = $1"
        return bool(await host.fetchval(stored, user) and await host.fetchval(synced, user))

    await eventually(is_stored)
    await first.vanish()
    await app.log_mood(host, user, 9)

    again = await listen(server, user, device_token=f"t {user}")

    assert [event["data"]["mood_score"] for event in await again.got(1)] == [9]


async def test_a_slow_reader_costs_a_fixed_amount_and_misses_nothing(
    server: Server, host: asyncpg.Connection, listen: Listen
) -> None:
    """20 MB wait for it; it is served from the table, and others do not wait for it."""
    user, other = await app.add_user(host), await app.add_user(host)
    slow = await listen(server, user, receive_buffer=4096)
    quick = await listen(server, other)
    slow.pause()
    before = server.memory()
    for _ in range(20):
        await host.execute(
            "SELECT realtime_publish($1, 'large', jsonb_build_object('text', repeat('x', 10000)))"
            " FROM generate_series(1, 100)",
            user,
        )
        await app.log_mood(host, other)
    await quick.got(20)
    growth = server.memory() - before

    assert growth < 12 << 20
    assert not slow.ended
    slow.resume()
    await slow.got(2000)
    assert slow.ids == sorted(set(slow.ids))


async def test_a_peer_that_takes_nothing_is_ended(
    house: Database, host: asyncpg.Connection, start_server: StartServer, eventually: Eventually
) -> None:
    """Its buffers are full, so the connection itself is dropped; it misses nothing when it resumes."""
    server = start_server(house.url, takes_nothing_after=2)
    await server.ready()
    user = await app.add_user(host)
    stuck = await stream.request(server.address, f"{stream.PATH}?user_id={user}", receive_buffer=4096)
    await stuck.until(lambda one: one.messages)
    stuck.pause()
    for _ in range(60):
        await app.publish(host, user, "large", text="x" * 60_000)

    port = stuck.port

    async def is_gone() -> bool:
        (process,) = server.workers
        peers = [each.raddr[1] for each in process.net_connections("tcp") if each.raddr]
        return port not in peers and (await server.health())["delivery"]["connections"] == 0

    await eventually(is_gone)
    stuck.resume()
    await stuck.finished()
    assert await host.fetchval(UNMARKED, user) == 60
    back = await stream.request(
        server.address, f"{stream.PATH}?user_id={user}", headers={"Last-Event-ID": stuck.last_event_id}
    )
    await back.got(60 - len(stuck.ids))
    assert [*stuck.ids, *back.ids] == sorted({*stuck.ids, *back.ids})
    await back.vanish()


@pytest.mark.parametrize("arguments", [(), ("--loop", "asyncio", "--http", "h11")], ids=["", "as installed"])
async def test_a_stopping_process_tells_its_streams_when_to_come_back(
    house: Database,
    host: asyncpg.Connection,
    start_server: StartServer,
    connect: Connect,
    arguments: tuple[str, ...],
) -> None:
    """In a message, and at its end by `retry`, which a browser obeys; nobody stuck keeps the process."""
    server = start_server(house.url, *arguments, drain_window=DRAIN)
    await server.ready()
    user = await app.add_user(host)
    clients = [
        await stream.request(server.address, f"{stream.PATH}?user_id=idle{number}") for number in range(30)
    ]
    await asyncio.gather(*(client.until(lambda one: one.messages) for client in clients))
    stuck = await stream.request(server.address, f"{stream.PATH}?user_id={user}", receive_buffer=4096)
    await stuck.until(lambda one: one.messages)
    stuck.pause()
    for _ in range(60):
        await app.publish(host, user, "large", text="x" * 60_000)
    socket = await connect(server, user)
    await socket.got(60)

    status, took = await server.stop(signal.SIGTERM)
    for client in clients:
        await client.finished()

    assert status == 0
    assert took < DRAIN + 9  # three times what is promised, and as little as ever
    for client in clients:
        told = client.messages[-1]
        assert (told["type"], list(told)) == ("reconnect", ["type", "after_ms"])
        assert client.retry == 250
        assert decode(client.last_event_id)
    assert await socket.ended() == 1001
    await stuck.vanish()

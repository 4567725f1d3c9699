"""The service ends: nobody new, everybody told, what was read is marked, nobody stuck keeps it, status 0."""

import asyncio
import bisect
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from math import inf

import asyncpg
import pytest

from app.gateway.departure import LAST_CONFIRMATIONS
from tests.e2e.conftest import Connect, StartServer
from tests.support import host as app
from tests.support.client import Client, raw_websocket
from tests.support.crowd import crowd, until_all
from tests.support.postgres import Database
from tests.support.server import Server

DRAIN = 8.0
"""Seconds that the drain may take; a process is gone three seconds after."""

WAYS: dict[str, tuple[int, Callable[[Server], None]]] = {
    "SIGTERM": (1, lambda server: server.send_signal(signal.SIGTERM)),
    "SIGINT": (1, lambda server: server.send_signal(signal.SIGINT)),
    "Ctrl-C, two workers": (2, lambda server: server.interrupt()),
    "SIGTERM, two workers": (2, lambda server: server.send_signal(signal.SIGTERM)),
}


async def ended(server: Server) -> None:
    """It ends in time, with status 0, and leaves no process behind."""
    began = asyncio.get_running_loop().time()
    status = await server.ended()
    assert status == 0, server.log
    assert asyncio.get_running_loop().time() - began < DRAIN + 3
    assert server.survivors() == []


async def told(client: Client) -> None:
    """It was told when to come back, and then closed."""
    assert await client.ended() == 1001
    last = client.messages[-1]
    assert list(last) == ["type", "after_ms"]
    assert last["type"] == "reconnect"
    assert 0 <= last["after_ms"] <= DRAIN * 1000


@pytest.mark.parametrize(("workers", "leave"), WAYS.values(), ids=WAYS.keys())
async def test_everybody_is_told_and_what_was_read_is_marked(
    house: Database,
    host: asyncpg.Connection,
    start_server: StartServer,
    connect: Connect,
    workers: int,
    leave: Callable[[Server], None],
) -> None:
    """200 idle clients, and some that just got something of which no receipt is written yet."""
    server = start_server(house.url, workers=workers, receipts_interval=600)
    await server.ready()
    users = [await app.add_user(host) for _ in range(10)]
    idle = await asyncio.gather(*(connect(server, f"idle {number}") for number in range(200)))
    readers = [await connect(server, user) for user in users]
    await app.log_moods(host, users, 100)
    for reader in readers:
        await reader.got(10)

    leave(server)
    await ended(server)

    for client in (*idle, *readers):
        await told(client)
    unmarked = "SELECT count(*) FROM realtime_events WHERE user_id = ANY($1::text[]) AND NOT delivered"
    assert await host.fetchval(unmarked, users) == 0
    with pytest.raises(OSError), socket.create_connection(server.address):
        pass


async def test_a_crowd_goes_one_after_the_other(house: Database, start_server: StartServer) -> None:
    """Of 1,200 clients each is closed when it was told, and no tenth of the window gets more than its share."""
    window = 5.0
    server = start_server(house.url, drain_window=window)
    await server.ready()
    async with crowd(server.address, [f"one of many {number}" for number in range(1200)]) as clients:
        signalled = time.monotonic()
        server.send_signal(signal.SIGTERM)
        status = await server.ended()
        took = time.monotonic() - signalled
        await until_all(clients, lambda client: client.ended.done())

    assert status == 0, server.log
    assert window * 0.9 < took < window + 20
    assert {client.close_code for client in clients} == {1001}
    told = sorted(client.after_ms for client in clients)
    closed = sorted(client.closed_at - signalled for client in clients)
    assert all(1000 * (client.closed_at - signalled) >= client.after_ms for client in clients)
    # The machine may be late for some of them together; what they were told is exact.
    assert most_in_a_tenth([after_ms / 1000 for after_ms in told], window) <= 0.11 * len(clients)
    assert most_in_a_tenth(closed, window) <= 0.5 * len(clients)


async def test_who_has_not_gone_yet_is_served(
    house: Database, host: asyncpg.Connection, start_server: StartServer
) -> None:
    """An event that is written after everybody was told reaches the last ones, and counts as delivered."""
    server = start_server(house.url, connections_per_user=100)
    await server.healthy()
    user = await app.add_user(host)
    async with crowd(
        server.address, [user] * 50 + [f"one of many {number}" for number in range(450)]
    ) as clients:
        server.send_signal(signal.SIGTERM)
        await until_all(clients, lambda client: client.after_ms is not None)
        await app.log_mood(host, user)
        assert await server.ended() == 0
        last = max(clients[:50], key=lambda client: client.after_ms)
        await until_all(clients, lambda client: client.ended.done())

    assert len(last.ids) == 1
    assert last.close_code == 1001
    assert await host.fetchval("SELECT delivered FROM realtime_events WHERE user_id = $1", user)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_second_signal_cuts_the_rest_off(
    house: Database, start_server: StartServer, number: signal.Signals
) -> None:
    """Whoever asks twice does not want to wait for the window."""
    server = start_server(house.url)
    await server.ready()
    async with crowd(server.address, [f"one of many {number}" for number in range(600)]) as clients:
        server.send_signal(number)
        await until_all(clients, lambda client: client.after_ms is not None)
        server.send_signal(number)
        assert await server.ended() == 0
        await until_all(clients, lambda client: client.ended.done())

    assert None in {client.close_code for client in clients}
    assert "second signal: leaving without waiting" in server.log


def most_in_a_tenth(times: list[float], window: float) -> int:
    """How many of these, seconds in ascending order, are in the fullest tenth of a window, wherever it begins."""
    return max(bisect.bisect(times, begin + window / 10) - place for place, begin in enumerate(times))


async def test_the_stuck_are_dropped(
    house: Database, host: asyncpg.Connection, start_server: StartServer, connect: Connect
) -> None:
    """One that reads nothing with full buffers, and one whose process is stopped; the polite are not hurt."""
    server = start_server(house.url)
    await server.ready()
    user, other = await app.add_user(host), await app.add_user(host)
    for _ in range(40):
        await app.publish(host, user, "large", text="x" * 60_000)
    stopped = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STOPPED, str(server.port), user), stdout=asyncio.subprocess.PIPE
    )
    assert stopped.stdout is not None
    assert await stopped.stdout.readline() == b"connected\n"
    os.kill(stopped.pid, signal.SIGSTOP)
    polite = await connect(server, other)
    try:
        async with raw_websocket(server.address, receive_buffer=4096, user_id=user):
            await app.log_mood(host, other)
            await polite.got(1)

            server.send_signal(signal.SIGTERM)
            await ended(server)
    finally:
        stopped.kill()
        await stopped.communicate()

    await told(polite)
    unmarked = "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND NOT delivered"
    assert await host.fetchval(unmarked, user) > 30
    assert await host.fetchval(unmarked, other) == 0


STOPPED = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
connection.sendall((
    f"GET /realtime/ws?user_id={sys.argv[2]} HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: websocket\\r\\n"
    "Connection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n"
).encode())
assert connection.recv(12) == b"HTTP/1.1 101"
print("connected", flush=True)
while True:
    connection.recv(1)
"""


async def test_nobody_new_gets_in_and_those_inside_finish(
    house: Database, host: asyncpg.Connection, start_server: StartServer, connect: Connect
) -> None:
    """While it waits for a last confirmation the port is closed already; the confirmation still counts."""
    answered_after = inf
    # A busy machine keeps this client too from answering in time.
    while answered_after > LAST_CONFIRMATIONS / 2:
        server = start_server(house.url)
        await server.ready()
        user = await app.add_user(host)
        async with raw_websocket(server.address, user_id=user) as last:
            await app.log_mood(host, user)
            while not last.pings:
                await last.read_frame()
            signalled_at = time.monotonic()
            server.send_signal(signal.SIGTERM)
            await port_closed(server)
            last.answer()
            last.pings.clear()
            answered_after = time.monotonic() - signalled_at
            async with last.reading():
                await ended(server)

    assert last.messages[-1]["type"] == "reconnect"
    unmarked = "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND NOT delivered"
    assert await host.fetchval(unmarked, user) == 0


async def test_a_half_open_handshake_keeps_nobody(
    house: Database, start_server: StartServer, connect: Connect
) -> None:
    """Half a request is waiting, and an idle HTTP connection."""
    server = start_server(house.url)
    await server.ready()
    half = await asyncio.open_connection(*server.address)
    half[1].write(b"GET /realtime/ws?user_id=ada HTTP/1.1\r\nHost")
    idle = await asyncio.open_connection(*server.address)
    idle[1].write(b"GET /realtime/health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await idle[0].readline()).startswith(b"HTTP/1.1 200")

    server.send_signal(signal.SIGTERM)
    await ended(server)

    for _, writer in (half, idle):
        writer.transport.abort()


async def test_who_waits_for_the_database_is_told_to_come_back(
    house: Database, host: asyncpg.Connection, start_server: StartServer
) -> None:
    """A request for which somebody's lock holds the database up is answered, and nothing is logged as an error."""
    server = start_server(house.url)
    await server.ready()
    device = {"user_id": await app.add_user(host), "device_token": "waits", "platform": "ios"}
    transaction = host.transaction()
    await transaction.start()
    await host.execute("LOCK users_devices IN ACCESS EXCLUSIVE MODE")
    waiting = asyncio.create_task(server.request("POST", "/realtime/devices", json=device))
    held_up = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'users_devices'::regclass"
    while not await host.fetchval(held_up):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.02)

    server.send_signal(signal.SIGTERM)
    await ended(server)
    await transaction.rollback()

    answer = await waiting
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert server.mishaps() == ""


async def test_a_killed_worker_of_two_leaves_the_rest_able_to_end(
    house: Database, start_server: StartServer
) -> None:
    """Whatever state the supervisor is in."""
    server = start_server(house.url, workers=2)
    await server.ready()
    server.workers[0].kill()

    server.send_signal(signal.SIGTERM)

    await ended(server)


async def port_closed(server: Server) -> None:
    """Wait until nobody new gets in."""
    async with asyncio.timeout(DRAIN):
        while True:
            try:
                _, writer = await asyncio.open_connection(*server.address)
            except OSError:
                return
            writer.transport.abort()

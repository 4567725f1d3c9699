"""A hundred thousand rows in one transaction arrive completely, in bounded memory, while health answers."""

import asyncio
import time

import asyncpg

from tests.e2e.conftest import Connect, Eventually
from tests.support import host as app
from tests.support.server import Server

ROWS, USERS, CONNECTED = 100_000, 1_000, 200
MEMORY = 32 << 20
"""Bytes by which the process may grow; 3 MiB were seen."""
PATIENCE = 120.0
"""Seconds for all of it; about eight on a quiet machine."""


async def test_a_bulk_insert_arrives_completely_in_bounded_memory(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """For 1,000 users of whom 200 are connected; in order, once each; the rest waits for the others."""
    users = [f"bulk {number}" for number in range(USERS)]
    await host.execute("INSERT INTO users (id) SELECT unnest($1::text[])", users)
    clients = await asyncio.gather(*(connect(server, user) for user in users[:CONNECTED]))
    before = server.memory()
    highest, slowest = before, 0.0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal highest, slowest
        while not done.is_set():
            began = time.monotonic()
            await server.health()
            slowest = max(slowest, time.monotonic() - began)
            highest = max(highest, server.memory())

    watching = asyncio.create_task(watch())
    await app.log_moods(host, users, ROWS)
    await asyncio.gather(*(client.got(ROWS // USERS, within=PATIENCE) for client in clients))

    async def all_are_marked() -> bool:
        left = "SELECT count(*) FROM realtime_events WHERE user_id = ANY($1::text[]) AND NOT delivered"
        return await host.fetchval(left, users[:CONNECTED]) == 0

    await eventually(all_are_marked)
    done.set()
    await watching

    for number, client in enumerate(clients):
        got = [event["data"]["mood_score"] for event in client.events]
        assert got == list(range(number + 1, ROWS + 1, USERS))
    assert highest - before < MEMORY, f"it grew by {(highest - before) >> 20} MiB"
    assert slowest < 10, f"health took {slowest:.1f} s"
    late = await connect(server, users[-1])
    assert len(await late.got(ROWS // USERS)) == ROWS // USERS

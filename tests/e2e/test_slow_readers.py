"""Readers that take a message now and then, and such as take nothing: neither costs memory, and none loses a row."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from tests.e2e.conftest import Connect, Eventually, StartServer
from tests.support import host as app
from tests.support.client import RawClient, raw_websocket
from tests.support.postgres import Database
from tests.support.server import Server

READERS = 20
WAITING = 10_000
TEXT = "x" * 1000
RATE = 10.0
"""Messages per second: of what a reader of one per second is given, ten times as fast."""
TAKES_NOTHING_AFTER = 10.0
READ = 130
"""Messages, which takes longer than a reader that takes nothing is given."""
MEMORY = 48 << 20
"""Bytes by which the process may grow for all of them; 15 MiB were seen, and 10 MB are waiting for each."""


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Of this module's service."""
    return {"takes_nothing_after": TAKES_NOTHING_AFTER, "connections_per_user": 2 * READERS}


async def test_who_reads_slowly_costs_a_fixed_amount_loses_nothing_and_stays(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """Twenty at once, each with 10,000 messages waiting and more coming; nobody else waits for them."""
    user, calm, other = [await app.add_user(host) for _ in range(3)]
    written = await publish_many(host, user, WAITING)
    bystander = await connect(server, other)
    async with AsyncExitStack() as stack:

        async def open_one(owner: str) -> RawClient:
            return await stack.enter_async_context(
                raw_websocket(server.address, receive_buffer=4096, user_id=owner)
            )

        for _ in range(READERS):
            await open_one(calm)
        before = highest = server.memory()
        readers = [await open_one(user) for _ in range(READERS)]
        reading = asyncio.gather(*(read_slowly(reader, READ) for reader in readers))
        written += await publish_many(host, user, 500)
        await app.log_mood(host, other)
        while not reading.done():
            highest = max(highest, server.memory())
            await asyncio.wait([reading], timeout=0.2)
        await reading
        await bystander.got(1)
        assert [reader.ids for reader in readers] == [written[:READ]] * READERS
        # What they have read says little: a closed connection is read to the end of its buffers too.
        assert (await server.health())["delivery"]["connections"] == 2 * READERS + 1

    marked = await host.fetchval(
        "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND delivered", user
    )
    assert marked <= READ
    assert highest - before < MEMORY, f"it grew by {(highest - before) >> 20} MiB"
    returning = await connect(server, user)
    rest = [event["id"] for event in await returning.got(len(written) - READ)]
    await returning.ask()
    assert returning.ids[: len(rest)] == rest
    assert returning.ids == written[len(written) - len(returning.ids) :]


@pytest.mark.parametrize("size", [10, 60_000], ids=["told", "dropped, its buffers being full"])
async def test_who_takes_nothing_is_closed_and_resumes_without_loss(
    house: Database,
    host: asyncpg.Connection,
    start_server: StartServer,
    connect: Connect,
    eventually: Eventually,
    size: int,
) -> None:
    """After TAKES_NOTHING_AFTER, with 4408 where that can still reach it."""
    server = start_server(house.url, takes_nothing_after=2)
    await server.ready()
    user = await app.add_user(host)
    written = await publish_many(host, user, 200, text="x" * size)
    async with raw_websocket(server.address, receive_buffer=4096, user_id=user, position="") as stuck:
        for _ in range(3):
            await stuck.read_message(answering=True)

        async def nobody_is_left() -> bool:
            return not (await server.health())["delivery"]["connections"]

        await eventually(nobody_is_left)
        position = stuck.messages[-1]["position"]
        if size < 1000:
            assert (await stuck.read_close())[0] == 4408
        else:
            await stuck.read_to_end()
    assert (
        await host.fetchval("SELECT count(*) FROM realtime_events WHERE user_id = $1 AND delivered", user)
        <= 3
    )

    returning = await connect(server, user, position=position)
    await returning.got(len(written) - 3)
    await returning.ask()

    assert returning.messages[0]["resumed"] is True
    assert returning.ids == written[3:]


async def read_slowly(reader: RawClient, count: int) -> None:
    """Read so many messages at the rate, and answer the pings between them as they are come to."""
    due = asyncio.get_running_loop().time()
    for _ in range(count):
        await reader.read_message(answering=True)
        due += 1 / RATE
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))


async def publish_many(host: asyncpg.Connection, user: str, count: int, *, text: str = TEXT) -> list[int]:
    """Write so many events of a text; return their ids."""
    published = await host.fetch(
        "SELECT realtime_publish($1, 'story', jsonb_build_object('text', $3::text)) FROM generate_series(1, $2::int)",
        user,
        count,
        text,
    )
    return [row[0] for row in published]

"""What was missed comes first and in order, then what is new; delivered is what a client has read."""

import asyncio
from itertools import pairwise

import asyncpg
import pytest

from tests.e2e.conftest import Connect, Eventually
from tests.support import host as app
from tests.support.client import raw_websocket
from tests.support.postgres import Database
from tests.support.server import Server

WINDOW = 256
"""Messages that may be in flight."""


async def undelivered(host: asyncpg.Connection, user: str) -> int:
    return await host.fetchval(
        "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND NOT delivered", user
    )


async def all_delivered(host: asyncpg.Connection, eventually: Eventually, user: str) -> None:
    async def met() -> bool:
        return await undelivered(host, user) == 0

    await eventually(met)


async def receipts_written(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """Wait until a neighbour's receipt is written, and with it all that were due before."""
    neighbour = await app.add_user(host)
    client = await connect(server, neighbour)
    await app.log_mood(host, neighbour)
    await client.got(1)
    await all_delivered(host, eventually, neighbour)


def scores(events: list[dict[str, object]]) -> list[int]:
    return [event["data"]["mood_score"] for event in events]  # type: ignore[index]


async def test_what_was_missed_comes_first_then_what_is_new(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """In the order of the commits; then everything is marked, with the time."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 1200)
    assert await undelivered(host, user) == 1200

    client = await connect(server, user)
    await app.log_mood(host, user, 1201)
    await client.got(1201)
    await all_delivered(host, eventually, user)

    assert scores(client.events) == list(range(1, 1202))
    unset = "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND delivered_at IS NULL"
    assert await host.fetchval(unset, user) == 0


async def test_nothing_is_lost_or_doubled_at_the_seam_while_rows_keep_coming(
    server: Server, house: Database, host: asyncpg.Connection, connect: Connect
) -> None:
    """Writers that commit late and roll back, clients that connect in the middle of it."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 600)
    writers = [await asyncpg.connect(house.url) for _ in range(4)]
    stop = asyncio.Event()

    async def write(number: int, writer: asyncpg.Connection) -> int:
        turns = 0
        while not stop.is_set():
            turns += 1
            transaction = writer.transaction()
            await transaction.start()
            await app.log_mood(writer, user, 1000 * number + turns)
            await asyncio.sleep(0.003 * number)  # lets the others commit first
            await (transaction.rollback() if turns % 5 == 0 else transaction.commit())
        return turns - turns // 5

    writing = [asyncio.create_task(write(number, one)) for number, one in enumerate(writers)]
    first = await connect(server, user)
    await first.got(700)
    second = await connect(server, user)
    await second.got(50)
    stop.set()
    written = 600 + sum(await asyncio.gather(*writing))
    await app.log_mood(host, user, 0)
    for writer in writers:
        await writer.close()

    for client in (first, second):
        await client.until(lambda one: one.events[-1]["data"]["mood_score"] == 0)
        await client.ask()
        assert len(client.ids) == len(set(client.ids))
    assert len(first.ids) == written + 1
    assert set(second.ids) == set(first.ids[-len(second.ids) :]) or set(second.ids) < set(first.ids)
    position = {row_id: place for place, row_id in enumerate(first.ids)}
    for number in range(1, 5):  # a writer's transactions come in its order
        theirs = [
            event["id"]
            for event in first.events[600:]
            if 1000 * number < event["data"]["mood_score"] < 1000 * (number + 1)
        ]
        assert [position[row_id] for row_id in theirs] == sorted(position[row_id] for row_id in theirs)


async def test_a_long_transaction_holds_nobody_up_and_arrives_when_it_commits(
    server: Server, house: Database, host: asyncpg.Connection, connect: Connect
) -> None:
    """Its ids are older than what was read long before."""
    user = await app.add_user(host)
    client = await connect(server, user)
    late = await asyncpg.connect(house.url)
    transaction = late.transaction()
    await transaction.start()
    await app.log_mood(late, user, 1)

    await app.log_mood(host, user, 2)
    await client.got(1)
    await transaction.commit()
    await client.got(2)
    await late.close()

    assert scores(client.events) == [2, 1]
    assert client.ids[1] < client.ids[0]


async def test_what_is_confirmed_is_not_sent_again(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """A client without a device that comes back gets only what nobody had."""
    user = await app.add_user(host)
    client = await connect(server, user)
    await app.log_moods(host, [user], 3)
    await client.got(3)
    await all_delivered(host, eventually, user)
    await client.vanish()
    await app.log_mood(host, user, 4)

    client = await connect(server, user)
    await app.log_mood(host, user, 5)

    assert scores(await client.got(2)) == [4, 5]


async def test_who_never_answers_a_ping_has_got_nothing(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """It read every byte; but only a pong says so. A later client gets all of it again."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 10)

    async with raw_websocket(server.address, user_id=user) as mute:
        while len(mute.ids) < 10 or not mute.pings:
            await mute.read_frame()
        await app.log_mood(host, user, 11)  # behind the unanswered ping: no other ping asks for it
        while len(mute.ids) < 11:
            await mute.read_frame()
        mute.say("ping")  # alive, and still no confirmation
        assert (await mute.read_message())["type"] == "pong"
        await receipts_written(server, host, connect, eventually)
        assert await undelivered(host, user) == 11
        mute.vanish()
    await receipts_written(server, host, connect, eventually)
    assert await undelivered(host, user) == 11

    client = await connect(server, user)
    assert scores(await client.got(11)) == [*range(1, 11), 11]
    await all_delivered(host, eventually, user)


async def test_a_pong_confirms_what_was_sent_before_its_ping_and_no_more(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """A pong nobody asked for, or one with another payload, confirms nothing."""
    user = await app.add_user(host)
    async with raw_websocket(server.address, user_id=user) as client:
        await app.log_mood(host, user, 1)
        while not client.pings:
            await client.read_frame()
        await app.log_mood(host, user, 2)
        while len(client.ids) < 2:
            await client.read_frame()
        right, wrong = client.pings[-1], b"nope"
        client.pings[:] = [wrong]
        client.answer()
        client.say("ping")
        assert (await client.read_message())["type"] == "pong"
        await receipts_written(server, host, connect, eventually)
        assert await undelivered(host, user) == 2

        client.pings[:] = [right]
        client.answer()

        async def one_is_left() -> bool:
            return await undelivered(host, user) == 1

        await eventually(one_is_left)
        await receipts_written(server, host, connect, eventually)
        left = "SELECT id FROM realtime_events WHERE user_id = $1 AND NOT delivered"
        assert [row[0] for row in await host.fetch(left, user)] == client.ids[1:]


@pytest.mark.parametrize("reads", [0, 20])
async def test_who_vanished_without_reading_gets_everything_again(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually, reads: int
) -> None:
    """Whatever the kernel and the server had taken for it."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 300)
    async with raw_websocket(server.address, receive_buffer=4096, user_id=user) as gone:
        for _ in range(reads):
            await gone.read_message()
        gone.vanish()

    client = await connect(server, user)
    await client.got(300)
    await all_delivered(host, eventually, user)

    assert scores(client.events) == list(range(1, 301))


async def test_who_leaves_in_the_middle_goes_on_where_it_was(
    server: Server, host: asyncpg.Connection, eventually: Eventually
) -> None:
    """What was confirmed and written down does not come again: at most a window comes twice."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 1000)

    async def receipts_are_written() -> bool:
        return (await server.health())["receipts"]["unwritten"] == 0

    visits: list[list[int]] = []
    while len({row_id for ids in visits for row_id in ids}) < 1000:
        async with raw_websocket(server.address, user_id=user) as client:
            while len(client.ids) < 300:
                await client.read_message(answering=True)
                if client.messages[-1]["data"]["mood_score"] == 1000:
                    break
            await eventually(receipts_are_written)
            client.vanish()
        visits.append(client.ids)

    for before, after in pairwise(visits):
        assert after == sorted(after)
        assert len(set(before) & set(after)) <= WINDOW
        assert after[0] <= before[-1] + 1


async def test_a_slow_reader_of_ten_thousand_loses_nothing_and_costs_a_fixed_amount(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """It reads at its own pace and stays connected; live rows wait in the table meanwhile."""
    user, other = await app.add_user(host), await app.add_user(host)
    await app.log_moods(host, [user], 9_000)
    before = server.memory()
    neighbour = await connect(server, other)

    async with raw_websocket(server.address, receive_buffer=4096, user_id=user) as slow:
        began = asyncio.get_running_loop().time()
        for number in range(150):  # 50 a second
            await slow.read_message(answering=True)
            await asyncio.sleep(max(0, began + number / 50 - asyncio.get_running_loop().time()))
            if number % 15 == 0:
                await app.log_moods(host, [user, other], 200)
        grown = server.memory() - before
        held = (await server.health())["active_users"]
        while len(slow.ids) < 10_000:
            await slow.read_message(answering=True)
        async with slow.reading():
            await all_delivered(host, eventually, user)

    assert held >= 2
    assert grown < 16 << 20, f"{grown >> 20} MiB for one slow reader"
    assert len(slow.ids) == len(set(slow.ids)) == 10_000
    assert slow.ids == sorted(slow.ids)
    await neighbour.got(1000)

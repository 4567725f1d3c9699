"""A client that acknowledges: what it is told, what an ack marks, and how far it is served without one."""

from typing import Any

import asyncpg
import pytest

from tests.e2e.acks.acking import ack, delivered, errors, nack, settled, states, told, tried
from tests.e2e.conftest import Connect, Eventually
from tests.e2e.test_devices import register
from tests.support import host as app
from tests.support.client import raw_websocket
from tests.support.server import Server

WINDOW = 8
WINDOW_BYTES = 4096


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Of this module's service: a window that is soon full."""
    return {"window": WINDOW, "window_bytes": WINDOW_BYTES}


async def test_it_is_told_numbers_and_what_came_before(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """Events and sync rows have exactly two keys more, control messages none."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    client = await connect(server, user, device_token=f"phone {user}", ack="1")
    await app.log_mood(host, user)
    await app.queue_sync(host, user)
    await app.log_mood(host, user)
    await client.got(3)
    await client.ask()

    connected, mood, sync, _, pong = client.messages
    assert set(connected) == {"type", "user_id", "timestamp", "epoch", "heartbeat_ms"}
    for message in (mood, sync):
        assert list(message) == ["type", "id", "data", "timestamp", "seq", "redelivered"]
    assert set(pong) == {"type", "timestamp"}
    assert told(client) == [(row_id, number, False) for number, row_id in enumerate(client.ids, 1)]


async def test_it_may_ask_for_positions_as_well(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """The position it gives is what it has processed, acknowledged or not; numbers begin anew."""
    user = await app.add_user(host)
    client = await connect(server, user, ack="1", position="")
    await app.log_moods(host, [user], 3)
    events = await client.got(3)
    assert set(client.messages[0]) == {
        *("type", "user_id", "timestamp"),
        *("epoch", "heartbeat_ms", "resumed", "reason", "position"),
    }
    assert set(events[0]) == {"type", "id", "data", "timestamp", "seq", "redelivered", "position"}
    await client.vanish()

    resumed = await connect(server, user, ack="1", position=events[1]["position"])

    assert [(event["id"], event["seq"]) for event in await resumed.got(1)] == [(events[2]["id"], 1)]
    await ack(resumed, 1)

    async def arrived() -> bool:
        return all(await delivered(host, user))

    await eventually(arrived)
    assert len(resumed.ids) == 1


async def test_the_devices_position_covers_what_is_acknowledged_and_no_more(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """However often its pongs say that it is there."""
    user = await app.add_user(host)
    device = await register(server, user, f"phone {user}", "ios")
    client = await connect(server, user, device_token=f"phone {user}", ack="1")
    await app.log_moods(host, [user], 5)
    await client.got(5)

    for processed in (0, 2, 3, 5):
        if processed:
            await ack(client, processed)
        await client.ask()
        received = ["received"] * processed + ["pending"] * (5 - processed)

        async def met(wanted: list[str] = received) -> bool:
            return await states(host, device["id"]) == wanted

        await eventually(met)
        assert await delivered(host, user) == [state == "received" for state in received]
    assert await tried(host, user) == []


@pytest.mark.parametrize("with_device", [True, False], ids=["device", "no device"])
async def test_who_vanishes_gets_what_was_not_acknowledged(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually, with_device: bool
) -> None:
    """And nothing that was; what stood in the way of the rest says that it came before."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    device = {"device_token": f"phone {user}"} if with_device else {}
    client = await connect(server, user, ack="1", **device)
    await app.log_moods(host, [user], 5)
    ids = [event["id"] for event in await client.got(5)]
    await ack(client, 2)
    await client.ask()
    await client.vanish()

    async def written() -> bool:
        return [row["event_id"] for row in await tried(host, user)] == [ids[2]] and (
            await delivered(host, user) == [True, True, False, False, False]
        )

    await eventually(written)
    client = await connect(server, user, ack="1", **device)
    await client.got(3)

    assert told(client) == [(ids[2], 1, True), (ids[3], 2, False), (ids[4], 3, False)]
    await ack(client, 3)
    await settled(host, eventually, user)
    await client.ask()
    assert len(client.ids) == 3


async def test_a_full_window_of_messages_pauses_it_until_an_ack(
    server: Server, host: asyncpg.Connection
) -> None:
    """Exactly the window comes, catching up and live; pings and their answers mean nothing for it."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 2 * WINDOW)
    async with raw_websocket(server.address, user_id=user, ack="1") as client:

        async def has(count: int) -> None:
            client.say("ping")
            while (await client.read_message(answering=True))["type"] != "pong":
                pass
            assert [event["seq"] for event in client.messages if "seq" in event] == list(range(1, count + 1))

        await has(WINDOW)
        client.say('{"type":"ack","seq":3}')
        await has(WINDOW + 3)
        client.say(f'{{"type":"ack","seq":{WINDOW + 3}}}')
        while len(client.ids) < 2 * WINDOW:
            await client.read_message(answering=True)
        await app.log_moods(host, [user], WINDOW)
        while len(client.ids) < 2 * WINDOW + 3:
            await client.read_message(answering=True)
        await has(2 * WINDOW + 3)
        client.say(f'{{"type":"ack","seq":{2 * WINDOW}}}')
        while len(client.ids) < 3 * WINDOW:
            await client.read_message(answering=True)
        assert client.ids == sorted(set(client.ids))


async def test_a_full_window_of_bytes_pauses_it_too(server: Server, host: asyncpg.Connection) -> None:
    """Two and a bit of what fits twice; one that is larger than the window comes alone."""
    user = await app.add_user(host)
    for size in (2500, 2500, 2500, 9000, 100):
        await app.publish(host, user, "story", text="x" * size)
    async with raw_websocket(server.address, user_id=user, ack="1") as client:
        for processed, count in ((0, 2), (1, 3), (2, 4), (3, 4), (4, 5)):
            client.say(f'{{"type":"ack","seq":{processed}}}')
            client.say("ping")
            while (await client.read_message(answering=True))["type"] != "pong":
                pass
            if len(client.ids) < count:  # a page of the catch-up may have been on its way
                await client.read_message(answering=True)
            assert len(client.ids) == count


async def test_wrong_acks_are_told_and_mark_nothing(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """Of what was never sent, backwards, or no number; the same ack twice is none of these."""
    user = await app.add_user(host)
    client = await connect(server, user, ack="1")
    await app.log_moods(host, [user], 4)
    await client.got(4)
    await ack(client, 2)
    await ack(client, 2)
    wrong: list[Any] = [5, 1, -1, "3", True, None, 3.0]

    for seq in wrong:
        await ack(client, seq)
    for seq in (5, 2, "3"):
        await nack(client, seq)
    await client.ask()

    assert errors(client) == ["bad_ack"] * (len(wrong) + 3)

    async def marked() -> bool:
        return await delivered(host, user) == [True, True, False, False]

    await eventually(marked)
    assert await tried(host, user) == []
    await ack(client, 4)
    await settled(host, eventually, user)
    assert client.close_code is None


async def test_who_did_not_ask_for_acks_cannot_give_them(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """It is told so, and its messages have no numbers."""
    user = await app.add_user(host)
    client = await connect(server, user, ack="0")
    await app.log_mood(host, user)
    (event,) = await client.got(1)

    await ack(client, 1)
    await nack(client, 1)
    await client.ask()

    assert set(event) == {"type", "id", "data", "timestamp"}
    assert errors(client) == ["bad_ack", "bad_ack"]


async def test_a_plain_client_beside_it_changes_nothing_for_it(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """What another device of the user confirmed has arrived; this one still has to acknowledge it."""
    user = await app.add_user(host)
    phone = await register(server, user, f"phone {user}", "ios")
    laptop = await register(server, user, f"laptop {user}", "web")
    acking = await connect(server, user, device_token=f"phone {user}", ack="1")
    plain = await connect(server, user, device_token=f"laptop {user}")
    await app.log_moods(host, [user], 3)
    for client in (acking, plain):
        await client.got(3)

    async def confirmed() -> bool:
        return all(await delivered(host, user)) and set(await states(host, laptop["id"])) == {"received"}

    await eventually(confirmed)
    assert await states(host, phone["id"]) == ["pending"] * 3
    await acking.vanish()

    acking = await connect(server, user, device_token=f"phone {user}", ack="1")
    await app.log_mood(host, user)
    assert [event["data"]["mood_score"] for event in await acking.got(4)] == [1, 2, 3, 7]
    await plain.got(4)
    await ack(acking, 4)

    async def acknowledged() -> bool:
        return set(await states(host, phone["id"])) == {"received"}

    await eventually(acknowledged)
    await plain.ask()
    assert len(plain.ids) == 4

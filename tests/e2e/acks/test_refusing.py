"""A message that a client has and cannot process: it comes again, apart from the stream, until it is given up."""

import time
from typing import Any

import asyncpg
import pytest

from tests.e2e.acks.acking import ack, delivered, errors, letters, nack, settled, states, told, tried
from tests.e2e.conftest import Connect, Eventually, StartServer
from tests.e2e.test_devices import register
from tests.support import host as app
from tests.support.client import Client
from tests.support.postgres import Database
from tests.support.server import Server

NACK_PAUSE = 0.2
"""Seconds; a quarter of it less or more by chance."""
NACKS = 5


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Of this module's service: refused messages come again soon."""
    return {"nack_pause": NACK_PAUSE}


async def refuse_until_given_up(client: Client, row_id: int, reason: str) -> None:
    """Nack a message as often as it comes, after pauses that double; the first is there."""
    refused_at = float("-inf")
    for count in range(1, NACKS + 1):
        await client.until(lambda one, count=count: one.ids.count(row_id) == count)
        last = [event for event in client.events if event["id"] == row_id][-1]
        pause = client.arrived[client.messages.index(last)] - refused_at
        assert pause >= 0.7 * NACK_PAUSE * 2 ** (count - 2)
        refused_at = time.monotonic()
        await nack(client, last["seq"], reason)


@pytest.mark.parametrize("with_device", [True, False], ids=["device", "no device"])
async def test_it_comes_again_after_a_pause_and_the_rest_goes_on(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually, with_device: bool
) -> None:
    """The same message under a new number; meanwhile acks pass it over, and so does the device's position."""
    user = await app.add_user(host)
    device = await register(server, user, f"phone {user}", "ios")
    query = {"device_token": f"phone {user}"} if with_device else {}
    client = await connect(server, user, ack="1", **query)
    await app.log_moods(host, [user], 3)
    first, second, _ = await client.got(3)

    refused_at = time.monotonic()
    await nack(client, 2, "no room")
    await ack(client, 3)
    await app.log_mood(host, user)
    await client.until(lambda one: second["id"] in one.ids[2:])

    again = next(event for event in client.events[3:] if event["id"] == second["id"])
    assert client.arrived[client.messages.index(again)] - refused_at >= 0.7 * NACK_PAUSE
    assert {**again, "seq": second["seq"], "redelivered": False} == second
    assert (again["seq"] in {4, 5}, again["redelivered"]) == (True, True)
    await client.got(5)
    others = [event["id"] for event in client.events if event["id"] != second["id"]]
    assert others == sorted(set(others))
    assert [row["event_id"] for row in await tried(host, user)] == [second["id"]]

    async def passed_over() -> bool:
        received = (await states(host, device["id"]))[:3] == ["received", "pending", "received"]
        return (await delivered(host, user))[:3] == [True, False, True] and received == with_device

    await eventually(passed_over)

    await ack(client, 5)
    await settled(host, eventually, user)
    assert len(client.ids) == 5
    assert first["id"] < second["id"]


async def test_its_old_number_settles_it_as_well(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """A client that got over it late may say so of the number it knows; said again it is wrong."""
    user = await app.add_user(host)
    client = await connect(server, user, ack="1")
    await app.log_moods(host, [user], 2)
    await client.got(2)
    await nack(client, 1)
    await ack(client, 2)
    await client.got(3)

    await ack(client, 1)
    await settled(host, eventually, user)
    await ack(client, 1)
    await ack(client, 3)
    await client.ask()

    assert [number for _, number, again in told(client) if again] == [3]
    assert errors(client) == ["bad_ack"]


async def test_it_is_given_up_for_the_device_that_refused_it_five_times(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """The letter says who and why; another device has it, and nothing else waits for it."""
    user = await app.add_user(host)
    phone = await register(server, user, f"phone {user}", "ios")
    tablet = await register(server, user, f"tablet {user}", "ios")
    refusing = await connect(server, user, device_token=f"phone {user}", ack="1")
    taking = await connect(server, user, device_token=f"tablet {user}", ack="1")
    await app.log_mood(host, user, 1)
    ((event,), _) = [await client.got(1) for client in (refusing, taking)]
    row_id = event["id"]

    await refuse_until_given_up(refusing, row_id, "cannot decrypt")

    async def given_up() -> bool:
        return bool(await letters(host, user))

    await eventually(given_up)
    (letter,) = await letters(host, user)
    assert letter == {
        "event_id": row_id,
        "device_id": phone["id"],
        "reason": "nacked",
        "detail": "cannot decrypt",
        "attempts": NACKS,
    }
    assert await tried(host, user) == []
    assert [(number, again) for _, number, again in told(refusing)] == [
        (number, number > 1) for number in range(1, NACKS + 1)
    ]
    await ack(taking, 1)
    await app.log_mood(host, user, 2)
    for client in (refusing, taking):
        await client.until(lambda one: one.events[-1]["data"]["mood_score"] == 2)
        await ack(client, client.events[-1]["seq"])

    async def each_has_its_own() -> bool:
        return (await states(host, phone["id"]), await states(host, tablet["id"])) == (
            ["dead", "received"],
            ["received", "received"],
        )

    await eventually(each_has_its_own)
    assert len(taking.ids) == 2
    await refusing.vanish()
    refusing = await connect(server, user, device_token=f"phone {user}", ack="1")
    await app.log_mood(host, user, 3)
    assert [event["data"]["mood_score"] for event in await refusing.got(1)] == [3]


async def test_without_devices_it_is_given_up_for_the_user(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """Settled as dead, so that nothing sends it any more; the rest goes on."""
    user = await app.add_user(host)
    client = await connect(server, user, ack="1")
    await app.log_mood(host, user, 1)
    (event,) = await client.got(1)

    await refuse_until_given_up(client, event["id"], "no")

    async def given_up() -> bool:
        return bool(await letters(host, user))

    await eventually(given_up)
    (letter,) = await letters(host, user)
    assert (letter["event_id"], letter["device_id"], letter["reason"]) == (event["id"], None, "nacked")
    settled_as = "SELECT settled_as FROM realtime_events WHERE id = $1"
    assert await host.fetchval(settled_as, event["id"]) == "dead"
    await client.vanish()
    client = await connect(server, user, ack="1")
    await app.log_mood(host, user, 2)
    assert [event["data"]["mood_score"] for event in await client.got(1)] == [2]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same process", "another process"])
async def test_it_comes_again_after_a_reconnect(
    house: Database,
    server: Server,
    start_server: StartServer,
    host: asyncpg.Connection,
    connect: Connect,
    eventually: Eventually,
    elsewhere: bool,
) -> None:
    """To whichever process the client comes, though the one that it refused it at was killed."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    before = server
    if elsewhere:
        before = start_server(house.url, nack_pause=NACK_PAUSE)
        await before.ready()
    client = await connect(before, user, device_token=f"phone {user}", ack="1")
    await app.log_moods(host, [user], 3)
    ids = [event["id"] for event in await client.got(3)]
    await nack(client, 2, "later")
    await ack(client, 3)

    async def written() -> bool:
        return len(await tried(host, user)) == 1 and (await delivered(host, user)) == [True, False, True]

    await eventually(written)
    if elsewhere:
        before.kill()
        await client.ended()
    else:
        await client.vanish()
    client = await connect(server, user, device_token=f"phone {user}", ack="1")

    await client.got(1)

    assert told(client) == [(ids[1], 1, True)]
    await ack(client, 1)
    await settled(host, eventually, user)


async def test_an_event_of_a_room_that_was_left_does_not_come_again(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """Refused in the room and due outside of it: nobody is owed it; what is refused elsewhere comes."""
    leaving, staying = await app.add_user(host), await app.add_user(host)
    room = await app.create_room(host, leaving, staying)
    await register(server, leaving, f"phone {leaving}", "ios")
    client = await connect(server, leaving, device_token=f"phone {leaving}", ack="1")
    await app.post_message(host, staying, room)
    await app.log_mood(host, leaving)
    message, mood = await client.got(2)
    await app.leave_room(host, room, leaving)
    await nack(client, 1)
    await nack(client, 2)
    await client.until(lambda one: one.ids.count(mood["id"]) == 2)

    async def withheld() -> bool:
        settled_as = "SELECT settled_as FROM realtime_events WHERE id = $1"
        return await host.fetchval(settled_as, message["id"]) == "left_room"

    await eventually(withheld)
    await ack(client, 3)
    await client.vanish()
    client = await connect(server, leaving, device_token=f"phone {leaving}", ack="1")
    await app.log_mood(host, leaving)
    await client.got(1)
    await client.ask()

    assert message["id"] not in client.ids


async def test_a_reason_that_no_text_can_hold_keeps_nobody_waiting(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """JSON can have halves of characters in it, and NUL; what they refuse is written down with all else."""
    user, other = await app.add_user(host), await app.add_user(host)
    client, bystander = await connect(server, user, ack="1"), await connect(server, other, ack="1")
    await app.log_mood(host, user)
    await app.log_mood(host, other)
    await client.got(1)
    await bystander.got(1)

    await nack(client, 1, "half of \ud83d and \0 nothing")
    await ack(bystander, 1)

    await settled(host, eventually, other)
    await client.got(2)
    reason = "SELECT detail FROM realtime_redeliveries WHERE user_id = $1"
    assert await host.fetchval(reason, user) == "half of ? and  nothing"

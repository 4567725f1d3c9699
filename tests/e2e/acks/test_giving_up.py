"""A client that acknowledges nothing: it is reminded, closed, and what stands in its way is given up in the end."""

import time
from typing import Any

import asyncpg
import pytest

from tests.e2e.acks.acking import ack, delivered, letters, settled, states, told, tried
from tests.e2e.conftest import Connect, Eventually
from tests.e2e.test_devices import register
from tests.support import host as app
from tests.support.server import Server

ACK_TIMEOUT = 1.0
REMINDERS = 3
ATTEMPTS = 8


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Of this module's service: patience is short."""
    return {"ack_timeout": ACK_TIMEOUT}


async def test_the_oldest_alone_is_sent_again_three_times_and_then_it_is_closed(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """With 4408, at the same distance; it comes back to the same message, which says that it came before."""
    user = await app.add_user(host)
    client = await connect(server, user, ack="1")
    written_at = time.monotonic()
    await app.log_moods(host, [user], 3)
    oldest, second, third = [event["id"] for event in await client.got(3)]

    assert await client.ended() == 4408

    assert told(client) == [
        *((oldest, 1, False), (second, 2, False), (third, 3, False)),
        *((oldest, number, True) for number in range(4, 4 + REMINDERS)),
    ]
    bodies = [{**event, "seq": 0, "redelivered": None} for event in client.events if event["id"] == oldest]
    assert bodies == bodies[:1] * (1 + REMINDERS)
    for number, arrived in enumerate(client.arrived[4:], 1):
        assert arrived - written_at >= 0.95 * number * ACK_TIMEOUT

    async def counted() -> bool:
        return await tried(host, user) == [{"event_id": oldest, "device_id": None, "attempts": 1, "nacks": 0}]

    await eventually(counted)
    client = await connect(server, user, ack="1")
    await client.got(3)
    assert told(client)[:3] == [(oldest, 1, True), (second, 2, False), (third, 3, False)]
    await ack(client, 3)
    await settled(host, eventually, user)


async def test_any_number_of_it_will_do_and_progress_keeps_it_open(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """Acknowledging late, by the first number, one message at a time, is no reason to be closed."""
    user = await app.add_user(host)
    client = await connect(server, user, ack="1")
    await app.log_moods(host, [user], 3)
    ids = [event["id"] for event in await client.got(3)]

    for number, row_id in enumerate(ids, 1):
        await client.until(lambda one, row_id=row_id: one.ids.count(row_id) == 2)
        await ack(client, number)
    last = client.events[-1]["seq"]
    await ack(client, last)
    await settled(host, eventually, user)
    await client.ask()

    assert client.close_code is None
    again = [row_id for row_id, _, before in told(client) if before]
    assert sorted(set(again)) == ids


async def test_an_event_of_a_room_that_was_left_is_not_sent_again(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """It is in flight and the oldest, and its user has left: the patience is the same, without reminders."""
    leaving, staying = await app.add_user(host), await app.add_user(host)
    room = await app.create_room(host, leaving, staying)
    client = await connect(server, leaving, ack="1")
    await app.post_message(host, staying, room)
    await app.log_mood(host, leaving)
    await client.got(2)
    await app.leave_room(host, room, leaving)

    assert await client.ended() == 4408

    assert len(client.ids) == 2
    client = await connect(server, leaving, ack="1")
    assert [event["type"] for event in await client.got(1)] == ["mood_update"]


@pytest.mark.parametrize("with_device", [True, False], ids=["device", "no device"])
async def test_what_stands_in_the_way_is_given_up_after_eight_connections_and_an_hour(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually, with_device: bool
) -> None:
    """One attempt for each that ended with it as the oldest; an hour later the rest flows."""
    user = await app.add_user(host)
    device = await register(server, user, f"phone {user}", "ios") if with_device else None
    device_id = None if device is None else device["id"]
    query = {"device_token": f"phone {user}"} if with_device else {}
    await app.log_moods(host, [user], 3)
    oldest = await host.fetchval("SELECT min(id) FROM realtime_events WHERE user_id = $1", user)

    async def end_with_it_unacknowledged(number: int) -> None:
        client = await connect(server, user, ack="1", **query)
        await client.got(3)
        assert told(client)[0] == (oldest, 1, number > 1)
        await client.vanish()

    for number in range(1, ATTEMPTS + 1):
        await end_with_it_unacknowledged(number)
        row = {"event_id": oldest, "device_id": device_id, "attempts": number, "nacks": 0}

        async def counted(row: dict[str, Any] = row) -> bool:
            return await tried(host, user) == [row]

        await eventually(counted)
    assert await letters(host, user) == []
    await host.execute(
        "UPDATE realtime_redeliveries SET first_at = first_at - interval '1 hour' WHERE user_id = $1", user
    )
    await end_with_it_unacknowledged(ATTEMPTS + 1)

    async def given_up() -> bool:
        return bool(await letters(host, user))

    await eventually(given_up)
    (letter,) = await letters(host, user)
    assert letter == {
        "event_id": oldest,
        "device_id": device_id,
        "reason": "unacked",
        "detail": None,
        "attempts": ATTEMPTS + 1,
    }
    client = await connect(server, user, ack="1", **query)
    await client.got(2)
    assert oldest not in client.ids
    await ack(client, 2)

    async def the_rest_arrived() -> bool:
        return await delivered(host, user) == [False, True, True]

    await eventually(the_rest_arrived)
    settled_as = "SELECT settled_as FROM realtime_events WHERE id = $1"
    assert await host.fetchval(settled_as, oldest) == (None if with_device else "dead")
    if device_id is not None:
        assert await states(host, device_id) == ["dead", "received", "received"]
    await client.ask()
    assert len(client.ids) == 2

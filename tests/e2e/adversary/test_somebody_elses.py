"""What is somebody else's, named by a user with a good token of his own: it stays theirs, and unread."""

from typing import Any

import asyncpg
import pytest

from tests.e2e.adversary.conftest import good, welcome
from tests.support import host as app
from tests.support import stream
from tests.support.server import Server


@pytest.fixture
async def thief(host: asyncpg.Connection) -> str:
    return await app.add_user(host)


@pytest.fixture
async def owner(server: Server, host: asyncpg.Connection) -> str:
    """Somebody with a phone, two events and a sync row that nobody has read yet."""
    user = await app.add_user(host)
    phone = {"device_token": phone_of(user), "platform": "ios"}
    made = await server.request("POST", "/realtime/devices", json=phone, headers=good(user))
    assert made.status_code == 201
    await app.log_mood(host, user, 1)
    await app.log_mood(host, user, 2)
    await app.queue_sync(host, user)
    return user


def phone_of(user: str) -> str:
    return f"phone of {user}"


async def asked(server: Server, user: str, **query: str) -> dict[str, Any]:
    """What `GET /realtime/sync` answers somebody."""
    answer = await server.request("GET", "/realtime/sync", params=query, headers=good(user))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_position_of_somebody_else_shows_nothing_of_theirs(
    server: Server, host: asyncpg.Connection, owner: str, thief: str
) -> None:
    """It counts for nothing; on every transport only what is the thief's own comes."""
    start = (await asked(server, owner, limit="1"))["next"]

    client = await welcome(server, thief, position=start)
    path = f"{stream.PATH}?position={start}"
    events = await stream.request(server.address, path, headers=good(thief))
    await events.until(lambda one: one.messages)
    answer = await asked(server, thief, position=start)
    await app.log_mood(host, thief, 9)
    await client.got(1)
    await client.ask()
    await events.got(1)

    for greeting in (client.messages[0], events.messages[0], answer):
        assert (greeting["resumed"], greeting["reason"]) == (False, "malformed")
    assert answer["messages"] == []
    for inbox in (client.events, events.events):
        assert [message["data"]["mood_score"] for message in inbox] == [9]
    await client.vanish()
    await events.vanish()


async def test_acks_of_what_is_somebody_else_s_mark_nothing(
    server: Server, host: asyncpg.Connection, owner: str, thief: str
) -> None:
    """Neither their ids, events and sync rows alike, nor their position, nor their device's place."""
    everything = await asked(server, owner, device_token=phone_of(owner))
    ids = [message["id"] for message in everything["messages"]]
    assert len(ids) == 3
    place = await host.fetchrow("SELECT * FROM users_devices WHERE user_id = $1", owner)
    phone = {"device_token": phone_of(thief), "platform": "ios"}
    await server.request("POST", "/realtime/devices", json=phone, headers=good(thief))

    position = {"position": everything["next"]}
    for named, status in (
        ({}, 200),
        ({"device_token": phone_of(thief)}, 200),
        ({"device_token": phone_of(owner)}, 403),
        ({"user_id": owner}, 403),
        (position, 409),
        ({"device_token": phone_of(thief), **position}, 409),
    ):
        ack = {"ids": ids, **named}
        answer = await server.request("POST", "/realtime/sync/ack", json=ack, headers=good(thief))
        assert answer.status_code == status
        assert status != 200 or answer.json() == {"marked": 0}
    client = await welcome(server, thief, ack="1")
    await client.send('{"type":"ack","seq":1}')
    await client.until(lambda one: any(message["type"] == "error" for message in one.messages))
    await client.vanish()

    assert (await asked(server, owner, device_token=phone_of(owner)))["messages"] == everything["messages"]
    assert await host.fetchrow("SELECT * FROM users_devices WHERE user_id = $1", owner) == place


async def test_a_sync_row_cannot_be_slipped_under_somebody_else(
    server: Server, host: asyncpg.Connection, owner: str, thief: str
) -> None:
    """Not by their device's token, nor by their id beside it, nor within an action."""
    action = {"key": "k", "action_type": "x", "payload": {"user_id": owner}}
    slipped = await host.fetchval("SELECT count(*) FROM sync_queue WHERE user_id = $1", owner)

    for body, status in (
        ({"device_token": phone_of(owner), "actions": [action]}, 403),
        ({"user_id": owner, "device_token": phone_of(owner), "actions": [action]}, 403),
        ({"device_token": "nobody's", "actions": [action]}, 404),
        ({"device_token": phone_of(owner), "actions": [{**action, "user_id": owner}]}, 403),
    ):
        answer = await server.request("POST", "/realtime/sync", json=body, headers=good(thief))
        assert answer.status_code == status, answer.text

    assert await host.fetchval("SELECT count(*) FROM sync_queue WHERE user_id = $1", owner) == slipped


async def test_a_device_of_somebody_else_is_not_taken_by_naming_it_as_the_one_before(
    server: Server, host: asyncpg.Connection, owner: str, thief: str
) -> None:
    """`previous_token` renames a device of one's own; another's keeps its name, its owner and its place."""
    before = await host.fetchrow("SELECT * FROM users_devices WHERE user_id = $1", owner)
    device = {"device_token": f"new {thief}", "platform": "ios", "previous_token": phone_of(owner)}

    answer = await server.request("POST", "/realtime/devices", json=device, headers=good(thief))
    removed = await server.request("DELETE", f"/realtime/devices/{before['id']}", headers=good(thief))

    assert answer.status_code in {201, 403, 404}
    assert removed.status_code == 404
    assert await host.fetchrow("SELECT * FROM users_devices WHERE user_id = $1", owner) == before
    listed = (await server.request("GET", "/realtime/devices", headers=good(thief))).json()
    assert before["id"] not in [one["id"] for one in listed]


@pytest.mark.parametrize("spell", ["{}&user_id={}", "{}&user%5Fid={}", "{}&USER_ID={}", "{}%00{}", "{},{}"])
async def test_no_spelling_of_a_query_makes_somebody_of_another(
    server: Server, host: asyncpg.Connection, owner: str, thief: str, spell: str
) -> None:
    """Whichever of two ids is looked at is the token's, or it is refused; and so where theirs comes first."""
    for first, second in ((thief, owner), (owner, thief)):
        query = f"user_id={spell.format(first, second)}"
        for path in ("/realtime/sync", "/realtime/devices"):
            answer = await server.request("GET", f"{path}?{query}", headers=good(thief))
            assert answer.status_code in {200, 403, 422}
            assert phone_of(owner) not in answer.text
            assert "mood_score" not in answer.text
        events = await stream.request(server.address, f"{stream.PATH}?{query}", headers=good(thief))
        await events.until(lambda one: one.messages or one.ended)
        assert events.status in {200, 400, 403}
        assert events.status != 200 or events.messages[0]["user_id"] == thief
        await events.vanish()

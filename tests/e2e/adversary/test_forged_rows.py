"""Rows and bells that somebody writes by hand: with the host's rights, and beyond them as the owner of the tables."""

import json

import asyncpg
import pytest

from tests.e2e.adversary.conftest import good, welcome
from tests.support import host as app
from tests.support.postgres import Database
from tests.support.roles import role_names
from tests.support.server import Server

FORGED_BELLS = [
    "",
    "{}",
    "nonsense",
    '{"user_id": 7}',
    '{"user_id": {"a": "b"}}',
    '{"user_id": "%s", "type": "mood_update", "data": {"mood_score": 666}}',
    "[" * 3900 + "]" * 3900,
    "x" * 7999,
]


async def as_host_role(house: Database) -> asyncpg.Connection:
    """Somebody with the rights that ops/grants.sql gives the host."""
    return await asyncpg.connect(house.cluster.url(house.name, user=role_names(house)[0]))


async def test_a_bell_is_never_data(server: Server, host: asyncpg.Connection) -> None:
    """Anybody in the database can ring one; whatever it says, nobody gets a message of it."""
    user = await app.add_user(host)
    client = await welcome(server, user)
    for channel in ("mood_events", "chat_events", "journal_events", "sync_events", "realtime_events"):
        for bell in FORGED_BELLS:
            await host.execute("SELECT pg_notify($1, $2)", channel, bell.replace("%s", user))
    await app.log_mood(host, user, 3)

    [event] = await client.got(1)
    await client.ask()

    assert event["data"]["mood_score"] == 3
    assert len(client.events) == 1
    await client.close()


async def test_the_host_s_role_names_a_room_and_not_who_may_see_it(
    server: Server, host: asyncpg.Connection, house: Database
) -> None:
    """An event of a room goes to who is in it, whoever it was published for; and the tables are not its to write."""
    member, stranger = await app.add_user(host), await app.add_user(host)
    room = await app.create_room(host, member)
    clients = [await welcome(server, user) for user in (member, stranger)]
    forger = await as_host_role(house)
    for user in (stranger, member):
        said = json.dumps({"room_id": room, "message_id": "forged", "sender_id": member})
        await forger.execute("SELECT realtime_publish($1, 'chat_message', $2, 'chat_events')", user, said)
    for refused in (
        f"INSERT INTO realtime_events (event_type, user_id, payload) VALUES ('x', '{stranger}', '{{}}')",
        f"UPDATE realtime_events SET user_id = '{stranger}'",
        "UPDATE realtime_events SET room_id = NULL",
        "SELECT * FROM realtime_tickets",
        f"INSERT INTO realtime_commands (kind, user_id) VALUES ('disconnect', '{member}')",
        f"UPDATE users_devices SET user_id = '{stranger}'",
        f"INSERT INTO sync_queue (user_id, action_type, payload, xid) VALUES ('{stranger}', 'x', '{{}}', '3')",
        "SELECT realtime_erase(1, 0)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await forger.execute(refused)
    await forger.close()
    await app.log_mood(host, stranger)

    await clients[0].got(1)
    await clients[1].got(1)
    for client in clients:
        await client.ask()
    assert [message["type"] for message in clients[0].events] == ["chat_message"]
    assert [message["type"] for message in clients[1].events] == ["mood_update"]
    for client in clients:
        await client.close()


@pytest.mark.parametrize(
    "values",
    [
        pytest.param("('connected', $1, '{\"user_id\": \"eve\"}', NULL, NULL)", id="a type of the protocol's"),
        pytest.param("('x', $1, '[1]', NULL, NULL)", id="a payload that is no object"),
        pytest.param("('x', $1, 'null', NULL, NULL)", id="a payload of nothing"),
        pytest.param("('x', $1, jsonb_build_object('a', repeat('x', 3000000)), NULL, NULL)", id="3 MB"),
        pytest.param("('x', $1, '{}', NULL, '9223372036854775807')", id="of the last transaction there can be"),
        pytest.param("('x', $1, '{}', 'no such room', NULL)", id="a room there is not"),
    ],
)  # fmt: skip
async def test_a_row_of_the_owner_s_own_hand_stops_nobody(
    server: Server, host: asyncpg.Connection, values: str
) -> None:
    """Whoever owns the tables can write anything; what is no event of ours may come or not, and others do."""
    user, other = await app.add_user(host), await app.add_user(host)
    clients = [await welcome(server, one) for one in (user, other)]
    await host.execute(
        "INSERT INTO realtime_events (event_type, user_id, payload, room_id, xid)"
        " SELECT event_type, user_id, payload::jsonb, room_id, coalesce(xid::xid8, pg_current_xact_id())"
        f" FROM (VALUES {values}) AS row (event_type, user_id, payload, room_id, xid)",
        user,
    )
    for one in (user, other):
        await app.log_mood(host, one, 5)

    for client in clients:
        await client.until(lambda one: any(each["type"] == "mood_update" for each in one.messages))
        await client.ask()
    assert [message["type"] for message in clients[1].messages] == ["connected", "mood_update", "pong"]
    returning = await welcome(server, user)
    await returning.ask()
    for client in (*clients, returning):
        await client.close()


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"])
async def test_a_time_that_no_message_can_tell_stops_nobody(
    server: Server, host: asyncpg.Connection, house: Database, moment: str
) -> None:
    """The host may set that of a sync row, and the owner that of an event; both come, and are from 1970."""
    user, other = await app.add_user(host), await app.add_user(host)
    phone = {"device_token": f"phone of {user}", "platform": "ios"}
    made = await server.request("POST", "/realtime/devices", json=phone, headers=good(user))
    assert made.status_code == 201
    who = {"device_token": phone["device_token"]}
    before = await server.request("GET", "/realtime/sync", params=who, headers=good(user))
    clients = [await welcome(server, user, **who), await welcome(server, other)]
    forger = await as_host_role(house)
    for writer, row in (
        (forger, "sync_queue (user_id, action_type, payload, created_at) VALUES ($1, 'x', '{}',"),
        (host, "realtime_events (user_id, event_type, payload, created_at) VALUES ($1, 'x', '{}',"),
    ):
        await writer.execute(f"INSERT INTO {row} $2::text::timestamptz)", user, moment)
    await forger.close()
    await app.log_mood(host, other)

    live = await clients[0].got(2)
    await clients[1].got(1)
    asked = who | {"position": before.json()["next"]}
    read = await server.request("GET", "/realtime/sync", params=asked, headers=good(user))

    assert [one["id"] for one in read.json()["messages"]] == [one["id"] for one in live]
    assert {one["timestamp"] for one in (*live, *read.json()["messages"])} == {"1970-01-01T00:00:00.000Z"}
    for client in clients:
        await client.close()

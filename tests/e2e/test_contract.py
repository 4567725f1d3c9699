"""What a client that asks for nothing gets: these keys, these types, these times, and nothing private."""

import asyncio
import re
from datetime import UTC, datetime

import asyncpg

from tests.e2e.conftest import Connect
from tests.support import host as app
from tests.support.server import Server

CANARY = "canary-4f1c"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def shown(moment: datetime) -> str:
    """A moment as the contract writes it."""
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


async def outbox_time(host: asyncpg.Connection, row_id: int) -> str:
    created_at = await host.fetchval("SELECT created_at FROM realtime_events WHERE id = $1", row_id)
    return shown(created_at)


async def test_connected_comes_first_with_these_keys(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """Also for a user nobody has heard of, and before what was missed."""
    user = await app.add_user(host)
    await app.log_mood(host, user)

    stranger = await connect(server, "nobody we know: ü/ß & 😀")
    client = await connect(server, user)
    await client.got(1)

    assert stranger.messages[0] == {
        "type": "connected",
        "user_id": "nobody we know: ü/ß & 😀",
        "timestamp": stranger.messages[0]["timestamp"],
    }
    assert list(client.messages[0]) == ["type", "user_id", "timestamp"]
    assert MOMENT.fullmatch(client.messages[0]["timestamp"])
    assert [message["type"] for message in client.messages] == ["connected", "mood_update"]


async def test_a_mood_arrives_with_its_score_and_its_own_time(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """`data.timestamp` is the mood's, `timestamp` the outbox row's; both UTC whatever the session's zone."""
    user = await app.add_user(host)
    client = await connect(server, user)

    await host.execute("SET TIME ZONE 'Asia/Kolkata'")
    await host.execute(
        "INSERT INTO moods (user_id, score, note, at) VALUES ($1, 7, $2, '2025-12-07 13:18:47.8126+05:30')",
        user,
        CANARY,
    )
    [event] = await client.got(1)

    assert event == {
        "type": "mood_update",
        "id": event["id"],
        "data": {
            "event_type": "mood_logged",
            "user_id": user,
            "mood_score": 7,
            "timestamp": "2025-12-07T07:48:47.812Z",
        },
        "timestamp": await outbox_time(host, event["id"]),
    }
    assert list(event) == ["type", "id", "data", "timestamp"]
    assert type(event["id"]) is int


async def test_a_message_of_a_room_reaches_its_members_and_nobody_else(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """Each with its own `user_id`; a former member and a stranger get nothing."""
    author, member, former, stranger = [await app.add_user(host) for _ in range(4)]
    room = await app.create_room(host, author, member, former)
    await app.leave_room(host, room, former)
    clients = {user: await connect(server, user) for user in (author, member, former, stranger)}

    message_id = await app.post_message(host, author, room, CANARY)
    created_at = await host.fetchval("SELECT created_at FROM chat_messages WHERE id = $1", message_id)

    for user in (author, member):
        [event] = await clients[user].got(1)
        assert event == {
            "type": "chat_message",
            "id": event["id"],
            "data": {
                "event_type": "message_received",
                "user_id": user,
                "message_id": message_id,
                "timestamp": shown(created_at),
                "room_id": room,
                "sender_id": author,
            },
            "timestamp": await outbox_time(host, event["id"]),
        }
    for user in (former, stranger):
        await app.log_mood(host, user)  # what comes behind the message that must not come
        assert [event["type"] for event in await clients[user].got(1)] == ["mood_update"]


async def test_a_message_without_a_room_reaches_its_author_only(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """With exactly the keys of a client of old: no room, no sender."""
    author = await app.add_user(host)
    client = await connect(server, author)

    message_id = await app.post_message(host, author, None, CANARY)
    [event] = await client.got(1)

    assert event["type"] == "chat_message"
    assert set(event["data"]) == {"event_type", "user_id", "message_id", "timestamp"}
    assert event["data"] | {"timestamp": ""} == {
        "event_type": "message_received",
        "user_id": author,
        "message_id": message_id,
        "timestamp": "",
    }
    assert (
        await host.fetchval(
            "SELECT count(*) FROM realtime_events WHERE payload->>'message_id' = $1", message_id
        )
        == 1
    )


async def test_a_journal_entry_arrives_by_its_id(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """Title and content stay where they are."""
    user = await app.add_user(host)
    client = await connect(server, user)

    entry_id = await app.write_entry(host, user, CANARY)
    created_at = await host.fetchval("SELECT created_at FROM journal_entries WHERE id = $1", entry_id)
    [event] = await client.got(1)

    assert event == {
        "type": "journal_update",
        "id": event["id"],
        "data": {
            "event_type": "entry_created",
            "user_id": user,
            "entry_id": entry_id,
            "timestamp": shown(created_at),
        },
        "timestamp": await outbox_time(host, event["id"]),
    }


async def test_a_sync_row_arrives_at_a_mobile_device(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """With the host's action and payload, and the row's time twice."""
    user = await app.add_user(host)
    token = {"user_id": user, "device_token": f"phone of {user}", "platform": "ios"}
    assert (await server.request("POST", "/realtime/devices", json=token)).status_code == 201
    client = await connect(server, user, device_token=token["device_token"])

    row_id = await app.queue_sync(host, user, "refresh", {"deep": [1, {"ü": None}], "big": 10**30})
    created_at = await host.fetchval("SELECT created_at FROM sync_queue WHERE id = $1", row_id)
    [event] = await client.got(1)

    assert event == {
        "type": "sync",
        "id": row_id,
        "data": {
            "action_type": "refresh",
            "payload": {"deep": [1, {"ü": None}], "big": 10**30},
            "created_at": shown(created_at),
        },
        "timestamp": shown(created_at),
    }


async def test_an_event_of_the_hosts_own_arrives_as_published(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """`event_type` is the message's `type`, `payload` its `data`; text of any kind comes through."""
    user = await app.add_user(host)
    client = await connect(server, user)
    text = 'quote " backslash \\ line\n\u2028 \x7f ü 😀 </script>'

    row_id = await app.publish(host, user, 'odd "type" \\', text=text)
    [event] = await client.got(1)

    assert event == {
        "type": 'odd "type" \\',
        "id": row_id,
        "data": {"text": text},
        "timestamp": await outbox_time(host, row_id),
    }


async def test_no_private_text_goes_anywhere(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """Neither to a client, nor into the outbox, nor into the log."""
    user = await app.add_user(host)
    room = await app.create_room(host, user)
    client = await connect(server, user)

    await host.execute(
        "INSERT INTO moods (user_id, score, note, tags) VALUES ($1, 5, $2, to_json($2::text))", user, CANARY
    )
    await app.post_message(host, user, room, CANARY)
    await app.post_message(host, user, None, CANARY)
    await app.write_entry(host, user, CANARY)
    await client.got(4)

    assert CANARY not in str(client.frames)
    assert CANARY not in server.log
    assert user not in server.log
    rows = await host.fetch("SELECT e::text FROM realtime_events AS e WHERE user_id = $1", user)
    assert len(rows) == 4
    assert CANARY not in str(rows)


async def test_every_connection_of_a_user_gets_every_live_event_and_nobody_elses(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """In the order of the commits, once each, among many other users' events."""
    user, other = await app.add_user(host), await app.add_user(host)
    mine = [await connect(server, user) for _ in range(4)]
    theirs = await connect(server, other)

    for score in range(1, 11):
        await app.log_moods(host, [user, other], 2)
        await app.log_mood(host, user, score)

    for client in mine:
        events = await client.got(20)
        assert {event["data"]["user_id"] for event in events} == {user}
        assert [event["data"]["mood_score"] for event in events] == [
            score for turn in range(1, 11) for score in (1, turn)
        ]
        assert client.ids == sorted(set(client.ids))
    assert len({tuple(client.ids) for client in mine}) == 1
    events = await theirs.got(10)
    assert {event["data"]["user_id"] for event in events} == {other}


async def test_what_was_rolled_back_never_arrives(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """Nor does what a savepoint took back, nor anything before it is committed."""
    user = await app.add_user(host)
    client = await connect(server, user)

    transaction = host.transaction()
    await transaction.start()
    await app.log_mood(host, user, 1)
    await transaction.rollback()
    async with host.transaction():
        await app.log_mood(host, user, 2)
        savepoint = host.transaction()
        await savepoint.start()
        await app.log_mood(host, user, 3)
        await savepoint.rollback()
        await app.log_mood(host, user, 4)
        await client.ask()
        assert client.ids == []
    events = await client.got(2)
    await client.ask()

    assert [event["data"]["mood_score"] for event in events] == [2, 4]


async def test_a_text_heartbeat_is_answered(server: Server, connect: Connect) -> None:
    """Every spelling of it, with a pong of two keys."""
    client = await connect(server, "ada")

    for spelling in ("ping", "heartbeat", '{"type":"ping"}', '{"type": "heartbeat", "more": 1}'):
        await client.send(spelling)
        await asyncio.sleep(0)
    await client.until(lambda one: len(one.messages) == 5)

    for pong in client.messages[1:]:
        assert list(pong) == ["type", "timestamp"]
        assert pong["type"] == "pong"
        assert MOMENT.fullmatch(pong["timestamp"])


async def test_health_counts_the_users_here(
    server: Server, connect: Connect, host: asyncpg.Connection
) -> None:
    """Users, not connections; with what it works on."""
    await server.healthy()
    before = (await server.health())["active_users"]
    for user in ("users-1", "users-1", "users-2"):
        await connect(server, user)

    health = await server.health()

    assert health["active_users"] == before + 2
    assert {name: health[name] for name in ("status", "service", "reasons")} == {
        "status": "healthy",
        "service": "realtime",
        "reasons": [],
    }
    assert MOMENT.fullmatch(health["timestamp"])
    assert health["delivery"]["confirmation"] == "ping"
    assert health["delivery"]["missing"] == {}
    assert health["database"] == {"reachable": True, "embedded": False}
    assert health["listener"]["echo_age_seconds"] < 60
    assert (await server.get("/realtime/ready")).status_code == 200

"""What operators do in SQL: see what became of an event, list what was given up, set it on its way again."""

from typing import Any

import asyncpg
import pytest

from tests.support import host
from tests.support.postgres import Database

pytestmark = pytest.mark.every_major

LISTED = {
    *("id", "event_id", "user_id", "device_id", "reason", "detail", "attempts", "dead_at"),
    *("event_type", "created_at", "is_redrivable"),
}


async def add_device(connection: asyncpg.Connection, user: str, platform: str = "ios", **columns: str) -> int:
    """Register a device; `columns` are expressions."""
    names, values = "".join(f", {name}" for name in columns), "".join(f", {v}" for v in columns.values())
    return await connection.fetchval(
        f"INSERT INTO users_devices (user_id, device_token, platform{names})"
        f" VALUES ($1, gen_random_uuid(), $2{values}) RETURNING id",
        user,
        platform,
    )


async def give_up(
    connection: asyncpg.Connection,
    event_id: int,
    *,
    user: str = "ann",
    device: int | None = None,
    settle: str | None = None,
) -> int:
    """Write a dead letter, and settle its event where told how; return the letter's id."""
    if settle is not None:
        await connection.execute(
            "UPDATE realtime_events SET settled_as = $2, attempts = 7 WHERE id = $1", event_id, settle
        )
    return await connection.fetchval(
        "INSERT INTO realtime_dead_letters (event_id, user_id, device_id, reason, detail, attempts)"
        " VALUES ($1, $2, $3, 'nacked', 'no such room', 5) RETURNING id",
        event_id,
        user,
        device,
    )


async def redrive(connection: asyncpg.Connection, letter: int) -> bool:
    return await connection.fetchval("SELECT realtime_redrive($1)", letter)


async def listed(connection: asyncpg.Connection, *arguments: Any) -> list[asyncpg.Record]:
    """Letters as the function lists them."""
    places = ", ".join(f"${number + 1}" for number in range(len(arguments)))
    return await connection.fetch(f"SELECT * FROM realtime_list_dead_letters({places})", *arguments)


async def left(connection: asyncpg.Connection) -> list[int]:
    """Ids of the letters there are."""
    return [row[0] for row in await connection.fetch("SELECT id FROM realtime_dead_letters ORDER BY id")]


async def due(connection: asyncpg.Connection) -> list[tuple[Any, ...]]:
    """What is due to be sent again: event, user, device, attempts and nacks."""
    return [
        tuple(row)
        for row in await connection.fetch(
            "SELECT event_id, user_id, device_id, attempts, nacks FROM realtime_redeliveries"
            " WHERE next_attempt_at <= now() ORDER BY event_id, device_id"
        )
    ]


async def states(connection: asyncpg.Connection) -> list[tuple[str, str]]:
    """Platform and state of each event and device, as the view tells them."""
    rows = await connection.fetch("SELECT platform, state FROM realtime_delivery ORDER BY platform, event_id")
    return [(row[0], row[1]) for row in rows]


async def everything(connection: asyncpg.Connection) -> list[str]:
    """All that redriving could change."""
    tables = ("realtime_events", "realtime_dead_letters", "realtime_redeliveries")
    return [
        row[0]
        for table in tables
        for row in await connection.fetch(f"SELECT t::text || t.xmin FROM {table} AS t ORDER BY id")
    ]


# ---- listing


async def test_letters_are_listed_with_what_they_are_about_and_never_its_payload(
    connection: asyncpg.Connection,
) -> None:
    """Events, sync rows and what is gone, by id; the columns are these and no others."""
    await host.add_user(connection, "ann")
    phone = await add_device(connection, "ann")
    event = await host.publish(connection, "ann", "badge_earned", secret="s")
    row = await host.queue_sync(connection, "ann", payload={"secret": "s"})
    letters = [
        await give_up(connection, event, settle="expired"),
        await give_up(connection, row, device=phone),
        await give_up(connection, 10**9),
    ]

    found = await listed(connection)

    assert set(found[0].keys()) == LISTED
    assert [one["id"] for one in found] == letters
    assert [one["event_id"] for one in found] == [event, row, 10**9]
    assert [one["event_type"] for one in found] == ["badge_earned", "sync", None]
    assert [one["created_at"] is None for one in found] == [False, False, True]
    assert [one["is_redrivable"] for one in found] == [True, True, False]
    assert [one["device_id"] for one in found] == [None, phone, None]
    assert {(one["user_id"], one["reason"], one["detail"], one["attempts"]) for one in found} == {
        ("ann", "nacked", "no such room", 5)
    }
    assert "secret" not in str(found)


async def test_letters_are_listed_by_user_and_in_pages(connection: asyncpg.Connection) -> None:
    """A page goes on after an id; at most a thousand come, and none for an odd number."""
    letters = [
        await give_up(connection, number, user=user)
        for number, user in enumerate(("ann", "bob", "ann", "ann"), 1)
    ]

    async def got(*arguments: Any) -> list[int]:
        return [row["id"] for row in await listed(connection, *arguments)]

    assert await got() == letters
    assert await got("ann") == [letters[0], *letters[2:]]
    assert await got("ann", letters[0], 1) == [letters[2]]
    assert await got(None, letters[1]) == letters[2:]
    assert await got("nobody") == await got(None, 0, -1) == []
    await connection.execute(
        "INSERT INTO realtime_dead_letters (event_id, user_id, reason)"
        " SELECT n, 'ann', 'expired' FROM generate_series(100, 1199) AS n"
    )
    assert len(await got("ann", 0, 5000)) == len(await got(None, 0, 5000)) == 1000


# ---- redriving for the whole user


@pytest.mark.parametrize("settled", ["expired", "dead"])
async def test_an_event_of_the_whole_user_is_as_if_written_now(
    connection: asyncpg.Connection, settled: str
) -> None:
    """Pending, unseen by every position of before, with its old id and time; its letters are gone."""
    await host.add_user(connection, "ann")
    event = await host.publish(connection, "ann", "badge_earned")
    created_at = await connection.fetchval("SELECT created_at FROM realtime_events")
    phone = await add_device(connection, "ann", position_seen="pg_current_snapshot()")
    cut = await add_device(
        connection,
        "ann",
        "web",
        position_seen="'3:3:'",
        position_reading="pg_current_snapshot()",
        position_after_id=str(event),
    )
    await give_up(connection, event, device=phone)
    await connection.execute(
        "INSERT INTO realtime_redeliveries (event_id, user_id, device_id, nacks, next_attempt_at)"
        " VALUES ($1, 'ann', $2, 3, now() + interval '1 day')",
        event,
        cut,
    )
    letter = await give_up(connection, event, settle=settled)
    other = await give_up(connection, event + 1)

    assert await redrive(connection, letter)

    row = await connection.fetchrow(
        "SELECT *, redriven_at <= clock_timestamp() AS redriven FROM realtime_events"
    )
    assert (row["id"], row["created_at"], row["redriven"]) == (event, created_at, True)
    assert (row["delivered"], row["settled_as"], row["attempts"]) == (False, None, 0)
    assert (row["delivered_at"], row["next_attempt_at"]) == (None, None)
    assert await states(connection) == [("ios", "pending"), ("web", "pending")]
    assert await left(connection) == [other]
    assert await due(connection) == []
    assert await connection.fetchval("SELECT count(*) FROM realtime_redeliveries") == 0
    assert not await redrive(connection, letter)


async def test_redriving_rings(database: Database, connection: asyncpg.Connection) -> None:
    """A user who is connected need not wait for the sweep."""
    letter = await give_up(
        connection, await host.publish(connection, "ann", "badge_earned"), settle="expired"
    )
    listener = await database.connect()
    heard: list[str] = []
    await listener.add_listener("realtime_events", lambda *told: heard.append(str(told[-1])))

    await redrive(connection, letter)
    await listener.fetchval("SELECT pg_notify('realtime_events', 'the end')")
    while "the end" not in heard:
        await listener.execute("SELECT")

    assert heard == ['{"user_id" : "ann"}', "the end"]


async def test_what_connections_without_a_device_gave_up_goes_to_everybody(
    connection: asyncpg.Connection,
) -> None:
    """Nobody knows which of them it was; those who have it know its id."""
    await host.add_user(connection, "ann")
    await add_device(connection, "ann", position_seen="pg_current_snapshot()")
    event = await host.publish(connection, "ann", "badge_earned")
    await connection.execute("UPDATE users_devices SET position_seen = pg_current_snapshot()")
    await connection.execute("UPDATE realtime_events SET delivered = true, delivered_at = now()")

    assert await redrive(connection, await give_up(connection, event))

    assert await connection.fetchval("SELECT count(*) FROM realtime_events WHERE NOT delivered") == 1
    assert await states(connection) == [("ios", "pending")]
    assert await left(connection) == await due(connection) == []


# ---- redriving for a device


async def test_what_a_device_gave_up_is_due_to_that_device_only(connection: asyncpg.Connection) -> None:
    """Events and sync rows, counted from nought again; the rows themselves and other letters stay."""
    await host.add_user(connection, "ann")
    phone, other = await add_device(connection, "ann"), await add_device(connection, "ann", "android")
    event = await host.publish(connection, "ann", "badge_earned")
    row = await host.queue_sync(connection, "ann")
    await connection.execute(
        "INSERT INTO realtime_redeliveries (event_id, user_id, device_id, attempts, nacks)"
        " VALUES ($1, 'ann', $2, 8, 5)",
        event,
        phone,
    )
    letters = [
        await give_up(connection, about, device=device)
        for about, device in ((event, phone), (row, phone), (event, other))
    ]
    before = await connection.fetchval("SELECT e::text FROM realtime_events AS e")

    assert [await redrive(connection, letter) for letter in letters[:2]] == [True, True]

    assert await due(connection) == [(event, "ann", phone, 0, 0), (row, "ann", phone, 0, 0)]
    assert await left(connection) == letters[2:]
    assert await connection.fetchval("SELECT e::text FROM realtime_events AS e") == before


# ---- what cannot be redriven


async def test_what_cannot_be_redriven_stays_as_it_is(connection: asyncpg.Connection) -> None:
    """Its row is gone, its device is gone or another's, it was replaced, or it is of a room that was left."""
    for user in ("ann", "bob"):
        await host.add_user(connection, user)
    phone = await add_device(connection, "ann")
    gone, moved = await add_device(connection, "ann"), await add_device(connection, "ann")
    event, replaced, withheld = [
        await host.publish(connection, "ann", "badge_earned", number=number) for number in range(3)
    ]
    room = await host.create_room(connection, "ann", "bob")
    await host.post_message(connection, "bob", room)
    of_room = await connection.fetchval(
        "SELECT id FROM realtime_events WHERE room_id = $1 AND user_id = 'ann'", room
    )
    await host.leave_room(connection, room, "ann")
    row = await host.queue_sync(connection, "ann")
    await connection.execute("DELETE FROM users_devices WHERE id = $1", gone)
    await connection.execute("UPDATE users_devices SET user_id = 'bob' WHERE id = $1", moved)
    letters = [
        await give_up(connection, 10**9),
        await give_up(connection, 10**9, device=phone),
        await give_up(connection, event, device=gone),
        await give_up(connection, event, device=moved),
        await give_up(connection, replaced, settle="collapsed"),
        await give_up(connection, withheld, settle="left_room"),
        await give_up(connection, of_room, settle="expired"),
        await give_up(connection, row),
    ]
    before = await everything(connection)

    assert [await redrive(connection, letter) for letter in letters] == [False] * len(letters)

    assert await everything(connection) == before
    assert [one["is_redrivable"] for one in await listed(connection)] == [False] * len(letters)


async def test_nothing_of_a_deleted_user_is_redriven(connection: asyncpg.Connection) -> None:
    """From the deletion on, and before anything is erased."""
    await host.add_user(connection, "ann")
    event = await host.publish(connection, "ann", "badge_earned")
    letter = await give_up(connection, event, settle="expired")
    await host.delete_user(connection, "ann")

    assert not await redrive(connection, letter)
    assert await connection.fetchval("SELECT realtime_redrive_all('ann')") == 0

    assert await left(connection) == [letter]
    assert [one["is_redrivable"] for one in await listed(connection)] == [False]


@pytest.mark.parametrize("held", ["realtime_events", "realtime_dead_letters", "realtime_redeliveries"])
async def test_nobody_is_waited_for(database: Database, connection: asyncpg.Connection, held: str) -> None:
    """Whoever holds a row keeps it, and the redriving can be tried again; the letter is as it was."""
    await host.add_user(connection, "ann")
    event = await host.publish(connection, "ann", "badge_earned")
    letter = await give_up(connection, event, settle="expired")
    await connection.execute(
        "INSERT INTO realtime_redeliveries (event_id, user_id) VALUES ($1, 'ann')", event
    )
    holder = await database.connect()

    async with holder.transaction():
        await holder.execute(f"SELECT FROM {held} FOR UPDATE")
        for call in ("realtime_redrive($1)", "realtime_redrive_all('ann') WHERE $1 > 0"):
            with pytest.raises(asyncpg.LockNotAvailableError):
                await connection.execute(f"SELECT {call}", letter)
        assert await left(connection) == [letter]

    assert await redrive(connection, letter)


async def test_a_host_that_locks_its_users_is_not_waited_for_either(
    database: Database, connection: asyncpg.Connection
) -> None:
    """A redrive looks at users and devices, and locks none of them."""
    await host.add_user(connection, "ann")
    phone = await add_device(connection, "ann")
    event = await host.publish(connection, "ann", "badge_earned")
    letters = [
        await give_up(connection, event, device=phone),
        await give_up(connection, event, settle="expired"),
    ]
    main_api = await database.connect()

    async with main_api.transaction():
        await main_api.execute("SELECT FROM users FOR UPDATE; SELECT FROM users_devices FOR UPDATE")
        assert [await redrive(connection, letter) for letter in letters] == [True, True]


async def test_all_of_a_user_is_redriven_that_can_be(connection: asyncpg.Connection) -> None:
    """In order and as many as told; what cannot be is no obstacle, and others keep their letters."""
    await host.add_user(connection, "ann")
    hopeless = await give_up(connection, 10**9)
    letters = [
        await give_up(connection, await host.publish(connection, "ann", "badge_earned"), settle="expired")
        for _ in range(5)
    ]
    other = await give_up(
        connection, await host.publish(connection, "bob", "badge_earned"), user="bob", settle="expired"
    )

    assert await connection.fetchval("SELECT realtime_redrive_all('ann', 2)") == 2
    assert await left(connection) == [hopeless, *letters[2:], other]
    assert await connection.fetchval("SELECT realtime_redrive_all('ann')") == 3

    assert await left(connection) == [hopeless, other]


# ---- the view


async def test_the_delivery_view_tells_what_each_device_has(connection: asyncpg.Connection) -> None:
    """Received by a whole snapshot or up to an id of another, dead by letter, otherwise pending."""
    await host.add_user(connection, "ann")
    for _ in range(4):
        await host.log_mood(connection, "ann")
    ids = [row["id"] for row in await connection.fetch("SELECT id FROM realtime_events ORDER BY id")]
    after_first = await connection.fetchval(
        "SELECT quote_literal(xid::text || ':' || xid::text || ':') FROM realtime_events WHERE id = $1",
        ids[1],
    )
    phone = await add_device(
        connection,
        "ann",
        position_seen=after_first,
        position_reading="pg_current_snapshot()",
        position_after_id=str(ids[1]),
    )
    await add_device(connection, "ann", "web")
    await give_up(connection, ids[2], device=phone)
    await give_up(connection, ids[3], settle="expired")
    await connection.execute("UPDATE realtime_events SET delivered = true WHERE id <> $1", ids[3])

    assert await states(connection) == [
        ("ios", "received"),
        ("ios", "received"),
        ("ios", "dead"),
        ("ios", "dead"),
        ("web", "pending"),
        ("web", "pending"),
        ("web", "pending"),
        ("web", "dead"),
    ]


async def test_the_delivery_view_calls_nothing_received_that_nobody_has_had(
    connection: asyncpg.Connection,
) -> None:
    """A position passes over what a newer one replaced and what its user may not see; a new device's has all."""
    await host.add_user(connection, "ann")
    ids = [await host.publish(connection, "ann", "badge_earned", number=number) for number in range(3)]
    await connection.execute("UPDATE realtime_events SET xid = '3' WHERE id = $1", ids[0])
    for event, reason in zip(ids[1:], ("collapsed", "left_room"), strict=True):
        await connection.execute("UPDATE realtime_events SET settled_as = $2 WHERE id = $1", event, reason)
    await add_device(connection, "ann", position_seen="pg_current_snapshot()")
    await add_device(connection, "ann", "web")

    assert await states(connection) == [
        (platform, state) for platform in ("ios", "web") for state in ("pending", "collapsed", "left_room")
    ]

    await connection.execute("UPDATE realtime_events SET delivered = true")
    assert await states(connection) == [("ios", "received")] * 3 + [("web", "pending")] * 3


async def test_the_delivery_view_knows_what_a_position_cannot(connection: asyncpg.Connection) -> None:
    """What a device could not process is pending, then dead, then pending again, though its position has gone on."""
    await host.add_user(connection, "ann")
    event = await host.publish(connection, "ann", "badge_earned")
    await connection.execute("UPDATE realtime_events SET delivered = true")
    phone = await add_device(connection, "ann", position_seen="pg_current_snapshot()")
    await add_device(connection, "ann", "web", position_seen="pg_current_snapshot()")
    await connection.execute(
        "INSERT INTO realtime_redeliveries (event_id, user_id, device_id, attempts) VALUES ($1, 'ann', $2, 1)",
        event,
        phone,
    )
    assert await states(connection) == [("ios", "received"), ("web", "received")]

    await connection.execute("UPDATE realtime_redeliveries SET next_attempt_at = now() + interval '1 hour'")
    assert await states(connection) == [("ios", "pending"), ("web", "received")]

    await connection.execute("DELETE FROM realtime_redeliveries")
    letter = await give_up(connection, event, device=phone)
    assert await states(connection) == [("ios", "dead"), ("web", "received")]

    await redrive(connection, letter)
    assert await states(connection) == [("ios", "pending"), ("web", "received")]


async def test_a_letter_of_connections_without_a_device_says_nothing_of_devices(
    connection: asyncpg.Connection,
) -> None:
    """A delivered event waits for a device that has not been there; one given up for all is dead for those only."""
    await host.add_user(connection, "ann")
    event = await host.publish(connection, "ann", "badge_earned")
    await connection.execute("UPDATE realtime_events SET delivered = true")
    await add_device(connection, "ann", position_seen="pg_current_snapshot()")
    await add_device(connection, "ann", "web")
    await give_up(connection, event)
    assert await states(connection) == [("ios", "received"), ("web", "pending")]

    await connection.execute("UPDATE realtime_events SET settled_as = 'expired'")
    assert await states(connection) == [("ios", "received"), ("web", "dead")]

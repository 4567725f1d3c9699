"""Sync over HTTP: what a client reads, in pages and in time, and that reading changes nothing."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from app.core.position import Incarnation, Position
from app.core.snapshot import Snapshot
from app.core.token import decode
from tests.e2e.conftest import Connect, Eventually, StartServer
from tests.e2e.test_devices import register
from tests.support import host as app
from tests.support.postgres import Database
from tests.support.server import PATIENCE, Server

SYNC = "/realtime/sync"
PROMPT = 1.0
"""Seconds within which what was written ends a wait; a test allows ten times as much."""

Answer = dict[str, Any]


async def sync(server: Server, user: str, **query: object) -> Answer:
    answer = await server.get(SYNC, user_id=user, **{name: str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def everything(server: Server, user: str, **query: object) -> list[Answer]:
    """Ask until there is no more; return the answers."""
    answers = [await sync(server, user, **query)]
    while answers[-1]["more"]:
        assert answers[-1]["messages"]
        answers.append(await sync(server, user, **query | {"position": answers[-1]["next"]}))
    return answers


async def acked(server: Server, user: str, **ack: object) -> int:
    answer = await server.request("POST", f"{SYNC}/ack", json={"user_id": user, **ack})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["marked"])


def ids(*answers: Answer) -> list[int]:
    return [message["id"] for answer in answers for message in answer["messages"]]


def scores(*answers: Answer) -> list[int]:
    return [message["data"]["mood_score"] for answer in answers for message in answer["messages"]]


def actions(*answers: Answer) -> list[str]:
    return [
        message["data"]["action_type"]
        for answer in answers
        for message in answer["messages"]
        if message["type"] == "sync"
    ]


async def contents(host: asyncpg.Connection, user: str) -> dict[str, Any]:
    """Every row of every table of ours that says something about a user.

    Of this one: receipts of users of other tests may still be on their way.
    """
    tables = ("realtime_events", "sync_queue", "users_devices", "realtime_commands", "realtime_dead_letters")
    return {
        table: await host.fetchval(
            f"SELECT array_agg(t::text || t.xmin::text ORDER BY id) FROM {table} AS t WHERE user_id = $1",
            user,
        )
        for table in tables
    }


async def undelivered(host: asyncpg.Connection, user: str) -> int:
    return await host.fetchval(
        "SELECT (SELECT count(*) FROM realtime_events WHERE user_id = $1 AND NOT delivered)"
        " + (SELECT count(*) FROM sync_queue WHERE user_id = $1 AND NOT synced)",
        user,
    )


async def waiting(server: Server) -> int:
    return (await server.health())["delivery"]["waiting"]


# ---- what is read


async def test_a_history_comes_in_pages_once_and_in_order_while_others_write(
    house: Database, server: Server, host: asyncpg.Connection
) -> None:
    """3,000 rows to begin with, and transactions that get their ids early and commit late."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 3000)
    stop = asyncio.Event()
    written = 3000

    async def write_late() -> None:
        nonlocal written
        connection = await asyncpg.connect(house.url)
        while not stop.is_set():
            async with connection.transaction():
                await app.log_mood(connection, user, 5)
                await asyncio.sleep(0.05)  # others commit above these ids meanwhile
                await app.log_mood(connection, user, 5)
            written += 2
        await connection.close()

    writers = [asyncio.create_task(write_late()) for _ in range(3)]
    answers = [await sync(server, user, limit=170)]
    while len(answers) < 30:
        answers.append(await sync(server, user, limit=170, position=answers[-1]["next"]))
    stop.set()
    await asyncio.gather(*writers)
    answers += await everything(server, user, limit=170, position=answers[-1]["next"])

    committed = await host.fetch("SELECT id FROM realtime_events WHERE user_id = $1", user)
    assert written > 3000
    assert sorted(ids(*answers)) == sorted(row["id"] for row in committed)
    assert len(set(ids(*answers))) == len(ids(*answers)) == written
    assert scores(*answers)[:3000] == list(range(1, 3001))
    assert all(len(answer["messages"]) <= 170 for answer in answers)
    assert [answer["resumed"] for answer in answers[1:]] == [True] * (len(answers) - 1)
    assert (answers[0]["resumed"], answers[0]["reason"]) == (False, "new")
    assert len({answer["epoch"] for answer in answers}) == 1


async def test_every_cut_goes_on_where_it_was(server: Server, host: asyncpg.Connection) -> None:
    """A page of one, of all but one, of all and of more; the last says that nothing follows."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 5)

    for limit in (1, 2, 4, 5, 6):
        answers = await everything(server, user, limit=limit)

        assert scores(*answers) == [1, 2, 3, 4, 5]
        assert [len(answer["messages"]) for answer in answers[:-1]] == [limit] * (len(answers) - 1)
        assert answers[-1]["messages"]


async def test_a_cut_read_goes_on_with_what_is_new_in_the_same_answer(
    server: Server, host: asyncpg.Connection
) -> None:
    """What was written since the read began follows the rest of it, as far as there is room."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 3)
    first = await sync(server, user, limit=2)
    await app.log_mood(host, user, 4)
    await app.log_mood(host, user, 5)

    rest = await sync(server, user, position=first["next"])
    narrow = await sync(server, user, position=first["next"], limit=2)
    exact = await sync(server, user, position=first["next"], limit=1)

    assert (scores(rest), rest["more"]) == ([3, 4, 5], False)
    assert (scores(narrow), narrow["more"]) == ([3, 4], True)
    assert (scores(exact), exact["more"]) == ([3], True)
    assert scores(await sync(server, user, position=narrow["next"])) == [5]
    assert scores(await sync(server, user, position=exact["next"])) == [4, 5]
    assert scores(await sync(server, user, position=rest["next"])) == []


async def test_messages_are_those_of_the_websocket(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """To the letter, events and sync rows in one order."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    room = await app.create_room(host, user)
    async with host.transaction():
        await app.log_mood(host, user)
        await app.queue_sync(host, user, "refresh", {"wörd": [1, "\u2028", "\\u0000"]})
        await app.post_message(host, user, room)
        await app.write_entry(host, user)

    answer = await server.get(SYNC, user_id=user, device_token=f"phone {user}")
    by_header = await server.request(
        "GET", SYNC, params={"user_id": user}, headers={"X-Device-Token": f"phone {user}"}
    )
    client = await connect(server, user, device_token=f"phone {user}")
    await client.got(4)

    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json()) == {"messages", "next", "more", "resumed", "reason", "epoch"}
    assert answer.json()["messages"] == client.events
    assert answer.text.startswith('{"messages":[' + ",".join(str(frame) for frame in client.frames[1:]))
    assert by_header.json()["messages"] == client.events


async def test_reading_changes_nothing(server: Server, host: asyncpg.Connection) -> None:
    """No row of any table: not what is delivered, not the device's position, not when it was last there."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    await app.log_moods(host, [user], 20)
    await app.queue_sync(host, user)
    # Two that are withheld, and one that is superseded: to be settled by who gets the rest.
    room = await app.create_room(host, user, "somebody")
    for _ in range(2):
        await app.post_message(host, "somebody", room)
    await app.leave_room(host, room, user)
    state = "SELECT realtime_publish($1, 'state', '{}', collapse_key => 'state')"
    events = [await host.fetchval(state, user) for _ in range(2)]
    before = await contents(host, user)

    for query in ({}, {"device_token": f"phone {user}"}, {"device_token": f"phone {user}", "wait": 0.2}):
        answers = await everything(server, user, limit=7, **query)
        assert len(ids(*answers)) == (22 if query else 21)
        assert events[0] not in ids(*answers)
        await sync(server, user, **query | {"position": answers[-1]["next"]})

    assert await contents(host, user) == before
    await acked(server, user, device_token=f"phone {user}", position=answers[-1]["next"])
    settled = await host.fetch(
        "SELECT settled_as FROM realtime_events WHERE user_id = $1 AND NOT delivered ORDER BY id", user
    )
    assert [row[0] for row in settled] == ["left_room", "left_room", "collapsed"]


async def test_without_a_position_the_stored_one_counts(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """What this device has is not given again; what it missed is, although another device had it."""
    user = await app.add_user(host)
    for token in ("phone", "laptop"):
        await register(server, user, f"{token} {user}", "web")
    phone = await connect(server, user, device_token=f"phone {user}")
    laptop = await connect(server, user, device_token=f"laptop {user}")
    await app.log_mood(host, user, 1)
    await phone.got(1)
    await laptop.got(1)
    received = "SELECT count(*) = 2 FROM realtime_delivery WHERE user_id = $1 AND state = 'received'"
    await eventually(lambda: host.fetchval(received, user))
    await phone.close()
    await app.log_mood(host, user, 2)
    await laptop.got(2)

    async def delivered() -> bool:
        return await undelivered(host, user) == 0

    await eventually(delivered)
    answer = await sync(server, user, device_token=f"phone {user}")

    assert (scores(answer), answer["resumed"], answer["reason"]) == ([2], True, None)
    assert scores(await sync(server, user)) == []


async def test_what_is_undelivered_is_owed_unless_the_client_says_that_it_has_it(
    server: Server, host: asyncpg.Connection
) -> None:
    """As for a connection: the stored position covers it, and nobody is known to have got it."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    phone = {"device_token": f"phone {user}"}
    await app.log_moods(host, [user], 3)
    first = await sync(server, user, **phone)
    await acked(server, user, **phone, position=first["next"])
    await host.execute("UPDATE realtime_events SET delivered = false WHERE user_id = $1", user)

    owed = await everything(server, user, **phone, limit=2)
    proven = await sync(server, user, **phone, position=first["next"])

    assert scores(*owed) == [1, 2, 3]
    assert scores(proven) == []
    assert await acked(server, user, **phone, position=first["next"]) == 3


async def test_sync_rows_are_for_phones_and_never_for_the_one_that_uploaded_them(
    server: Server, host: asyncpg.Connection
) -> None:
    """Neither for a browser nor for a nameless client; what a phone has not, it does not confirm either."""
    user = await app.add_user(host)
    device = {
        platform: (await register(server, user, f"{platform} {user}", platform))["id"]
        for platform in ("ios", "android", "web")
    }
    await host.execute(
        "INSERT INTO sync_queue (user_id, action_type, payload, device_id) VALUES ($1, 'by ios', '{}', $2)",
        user,
        device["ios"],
    )
    await app.queue_sync(host, user, "by the host")

    answers = {platform: await sync(server, user, device_token=f"{platform} {user}") for platform in device}
    nameless = await sync(server, user)

    assert actions(answers["android"]) == ["by ios", "by the host"]
    assert actions(answers["ios"]) == ["by the host"]
    assert actions(answers["web"]) == actions(nameless) == []
    assert await acked(server, user, device_token=f"web {user}", position=answers["web"]["next"]) == 0
    assert await acked(server, user, position=nameless["next"]) == 0
    assert await acked(server, user, device_token=f"ios {user}", position=answers["ios"]["next"]) == 1
    assert await undelivered(host, user) == 1
    assert await acked(server, user, device_token=f"android {user}", position=answers["android"]["next"]) == 1
    assert await undelivered(host, user) == 0


async def test_an_answer_has_at_most_a_mebibyte(server: Server, host: asyncpg.Connection) -> None:
    """Or one message, where that alone is larger; what does not fit comes with the next call."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    sizes = [300_000] * 7 + [2_000_000] + [300_000] * 2
    async with host.transaction():
        for number, size in enumerate(sizes):
            await app.queue_sync(host, user, f"action {number}", {"fill": "x" * size})

    answers = await everything(server, user, device_token=f"phone {user}")

    assert actions(*answers) == [f"action {number}" for number in range(len(sizes))]
    assert [len(answer["messages"]) for answer in answers] == [3, 3, 1, 1, 2]
    for answer in answers:
        assert len(answer["messages"]) == 1 or len(json.dumps(answer["messages"])) < (1 << 20) + 4096


async def test_a_default_answer_has_at_most_500_messages(server: Server, host: asyncpg.Connection) -> None:
    """Which is the most there can be asked for."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 501)

    answers = await everything(server, user)

    assert [len(answer["messages"]) for answer in answers] == [500, 1]


# ---- positions that cannot be resumed


def _elsewhere(position: Position) -> Position:
    incarnation = Incarnation(position.incarnation.system ^ 1, position.incarnation.life)
    return Position(position.seen, position.taken_at, incarnation)


def _later(position: Position) -> Position:
    return Position(Snapshot(position.seen.xmax + 1_000_000), position.taken_at, position.incarnation)


def _changed(token: str, change: Callable[[Position], Position]) -> str:
    given = decode(token)
    return given._replace(position=change(given.position)).text()


LOST = {
    "malformed": lambda _: "rubbish",
    "other_database": lambda token: _changed(token, _elsewhere),
    "future": lambda token: _changed(token, _later),
}


@pytest.mark.parametrize("reason", LOST)
async def test_a_lost_position_is_told_and_gets_what_is_undelivered(
    server: Server, host: asyncpg.Connection, reason: str
) -> None:
    """The next one resumes exactly; an ack of the lost one is refused and marks nothing."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    token = LOST[reason]((await sync(server, user))["next"])
    await app.log_mood(host, user, 1)
    event = await host.fetchval("SELECT id FROM realtime_events WHERE user_id = $1", user)
    before = await contents(host, user)

    answer = await sync(server, user, position=token)
    refused = await server.request(
        "POST",
        f"{SYNC}/ack",
        json={"user_id": user, "device_token": f"phone {user}", "position": token, "ids": [event]},
    )
    after = await contents(host, user)

    assert (scores(answer), answer["resumed"], answer["reason"]) == ([1], False, reason)
    assert refused.status_code == (422 if reason == "malformed" else 409)
    assert refused.json()["code"] == reason
    assert after == before
    following = await sync(server, user, position=answer["next"])
    assert (scores(following), following["resumed"], following["reason"]) == ([], True, None)


async def test_a_position_that_retention_has_passed_is_told(server: Server, host: asyncpg.Connection) -> None:
    """Of the device's own too."""
    user = await app.add_user(host)
    token = (await sync(server, user))["next"]
    old = await host.fetchval("SELECT purged_through FROM realtime_retention")
    await host.execute("UPDATE realtime_retention SET purged_through = clock_timestamp()")
    try:
        answer = await sync(server, user, position=token)
        refused = await server.request("POST", f"{SYNC}/ack", json={"user_id": user, "position": token})
    finally:
        await host.execute("UPDATE realtime_retention SET purged_through = $1", old)

    assert (answer["resumed"], answer["reason"]) == (False, "retention")
    assert (refused.status_code, refused.json()["code"]) == (409, "retention")


# ---- acks


async def test_an_ack_marks_what_the_position_covers_and_moves_the_device(
    server: Server, host: asyncpg.Connection
) -> None:
    """In mid-read too; repeated it changes nothing, and an older one moves nothing back."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    await app.log_moods(host, [user], 8)
    await app.queue_sync(host, user)
    phone = {"device_token": f"phone {user}"}
    start = await sync(server, user, **phone, limit=1)
    early = await sync(server, user, **phone, position=start["next"], limit=2)
    late = await sync(server, user, **phone, position=early["next"], limit=4)

    assert await acked(server, user, **phone, position=late["next"]) == 7
    after = await contents(host, user)
    assert await acked(server, user, **phone, position=late["next"]) == 0
    assert await acked(server, user, **phone, position=early["next"]) == 0
    assert await contents(host, user) == after
    rest = await sync(server, user, **phone)
    assert (scores({"messages": rest["messages"][:1]}), actions(rest), len(ids(rest))) == (
        [8],
        ["refresh"],
        2,
    )
    assert await acked(server, user, **phone, position=rest["next"]) == 2
    assert await undelivered(host, user) == 0
    received = "SELECT count(*) FROM realtime_delivery WHERE user_id = $1 AND state = 'received'"
    assert await host.fetchval(received, user) == 8
    assert ids(await sync(server, user, **phone)) == []


async def test_a_device_moves_on_while_it_is_given_again_what_it_was_owed(
    server: Server, host: asyncpg.Connection
) -> None:
    """The read begins below what is stored of it, which still never goes back."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    phone = {"device_token": f"phone {user}"}
    covered = """
        SELECT count(*) FROM realtime_events AS e JOIN users_devices AS d USING (user_id)
        WHERE user_id = $1 AND (
            pg_visible_in_snapshot(e.xid, d.position_seen)
            OR e.id <= d.position_after_id AND pg_visible_in_snapshot(e.xid, d.position_reading))"""
    await app.log_moods(host, [user], 3)
    await acked(server, user, **phone, position=(await sync(server, user, **phone))["next"])
    await host.execute("UPDATE realtime_events SET delivered = false WHERE user_id = $1", user)
    for score in (4, 5, 6):
        await app.log_mood(host, user, score)

    first = await sync(server, user, **phone, limit=2)
    assert await acked(server, user, **phone, position=first["next"]) == 2
    assert await host.fetchval(covered, user) == 3
    second = await sync(server, user, **phone, position=first["next"], limit=2)
    assert await acked(server, user, **phone, position=second["next"]) == 2

    assert scores(first, second) == [1, 2, 3, 4]
    assert await host.fetchval(covered, user) == 4
    assert scores(await sync(server, user, **phone)) == [5, 6]


async def test_an_ack_without_a_device_marks_the_events(server: Server, host: asyncpg.Connection) -> None:
    """However many: more than are looked up at once."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 10_300)
    token = (await sync(server, user))["next"]
    assert await acked(server, user, position=token) == 500
    token = (await sync(server, user, position=token))["next"]
    for _ in range(19):
        token = (await sync(server, user, position=token))["next"]

    assert await acked(server, user, position=token) == 9_800
    assert await undelivered(host, user) == 0


async def test_ids_are_marked_by_themselves_and_only_the_users_own(
    server: Server, host: asyncpg.Connection
) -> None:
    """Those of another user, of nobody, and sync rows for other devices are passed over."""
    user, other = await app.add_user(host), await app.add_user(host)
    laptop = await register(server, user, f"laptop {user}", "web")
    for one in (user, other):
        await app.log_moods(host, [one], 2)
        await app.queue_sync(host, one)
    before = await host.fetchrow("SELECT * FROM users_devices WHERE id = $1", laptop["id"])
    rows = await host.fetch(
        "SELECT id FROM realtime_events WHERE user_id = ANY($1) UNION ALL"
        " SELECT id FROM sync_queue WHERE user_id = ANY($1) ORDER BY id",
        [user, other],
    )
    everybodys = [row["id"] for row in rows]

    assert await acked(server, user, ids=[*everybodys[1:], 9_000_000_000]) == 1
    assert await acked(server, user, device_token=f"laptop {user}", ids=everybodys) == 1
    assert await acked(server, user, ids=everybodys) == 0

    assert await undelivered(host, other) == 3
    assert await undelivered(host, user) == 1
    phone = await register(server, user, f"phone {user}", "ios")
    own = "INSERT INTO sync_queue (user_id, action_type, payload, device_id) VALUES ($1, 'x', '{}', $2) RETURNING id"
    everybodys.append(await host.fetchval(own, user, phone["id"]))
    assert await acked(server, user, device_token=f"phone {user}", ids=everybodys) == 1
    assert await undelivered(host, other) == 3
    assert await undelivered(host, user) == 1
    assert await host.fetchrow("SELECT * FROM users_devices WHERE id = $1", laptop["id"]) == before


async def test_ids_of_an_earlier_epoch_mark_nothing(server: Server, host: asyncpg.Connection) -> None:
    """The rows that had these ids may be gone, as a crash can take them, and others have their numbers."""
    user = await app.add_user(host)
    await app.log_mood(host, user)
    answer = (await server.get("/realtime/sync", user_id=user)).json()
    ids = [message["id"] for message in answer["messages"]]

    assert await acked(server, user, ids=ids, epoch="0123456789abcdef") == 0
    assert await undelivered(host, user) == 1
    assert await acked(server, user, ids=ids, epoch=answer["epoch"]) == 1


async def test_a_connected_device_that_acks_over_http_keeps_its_place(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """An ack begins no generation, so the connection stays and its confirmations count."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    client = await connect(server, user, device_token=f"phone {user}")
    answer = await sync(server, user, device_token=f"phone {user}")
    await acked(server, user, device_token=f"phone {user}", position=answer["next"])
    await app.log_mood(host, user)
    await client.got(1)

    received = "SELECT count(*) = 1 FROM realtime_delivery WHERE user_id = $1 AND state = 'received'"
    await eventually(lambda: host.fetchval(received, user))
    assert client.close_code is None


# ---- waiting


async def test_a_wait_ends_when_something_is_written(
    house: Database, server: Server, host: asyncpg.Connection, eventually: Eventually
) -> None:
    """By another process, for one of those who wait; the others, and sync rows for phones, leave it be."""
    user, other = await app.add_user(host), await app.add_user(host)
    asked = asyncio.create_task(sync(server, user, wait=25))
    elsewhere = asyncio.create_task(sync(server, other, wait=25))

    async def both_wait() -> bool:
        return await waiting(server) == 2

    await eventually(both_wait)
    await app.queue_sync(host, user)
    wrote = time.monotonic()
    await app.log_mood(host, user, 3)
    answer = await asked
    took = time.monotonic() - wrote

    assert scores(answer) == [3]
    assert (answer["resumed"], answer["reason"], answer["more"]) == (False, "new", False)
    assert took < 10 * PROMPT
    assert not elsewhere.done()
    await app.log_mood(host, other, 4)
    assert scores(await elsewhere) == [4]
    assert scores(await sync(server, user, position=answer["next"])) == []
    assert await waiting(server) == 0


async def test_a_wait_ends_by_itself(server: Server, host: asyncpg.Connection) -> None:
    """After its seconds, with a position that goes on; and at once when there is something already."""
    user = await app.add_user(host)
    began = time.monotonic()
    empty = await sync(server, user, wait=0.7)
    took = time.monotonic() - began
    await app.log_mood(host, user, 3)

    there = await sync(server, user, position=empty["next"], wait=25)

    assert (ids(empty), empty["more"]) == ([], False)
    assert 0.7 <= took < PATIENCE
    assert scores(there) == [3]


async def test_a_wait_needs_no_bell(
    house: Database, start_server: StartServer, host: asyncpg.Connection, eventually: Eventually
) -> None:
    """Where no bell rings the sweep finds the row."""
    silent = start_server(house.url, bells="off")
    await silent.ready()
    user = await app.add_user(host)
    asked = asyncio.create_task(sync(silent, user, wait=25))

    async def it_waits() -> bool:
        return await waiting(silent) == 1

    await eventually(it_waits)
    wrote = time.monotonic()
    await host.execute("SET realtime.bells = 'off'")
    await app.log_mood(host, user, 3)

    assert scores(await asked) == [3]
    assert time.monotonic() - wrote < 10 * (1 + PROMPT)


async def test_those_who_wait_hold_no_connection_and_are_bounded(
    server: Server, house: Database, connect: Connect, eventually: Eventually
) -> None:
    """Twenty of one user wait, more than the pool has connections, and the next is told so; others are served."""
    owner = await asyncpg.connect(house.url)
    user, other = await app.add_user(owner), await app.add_user(owner)
    asked = [asyncio.create_task(sync(server, user, wait=25)) for _ in range(20)]

    async def all_wait() -> bool:
        return await waiting(server) == 20

    await eventually(all_wait)
    refused = await server.get(SYNC, user_id=user, wait="25")
    plain = await sync(server, user)
    client = await connect(server, other)

    async def only_one_is_connected() -> bool:  # connections of the test before may end a moment after it
        health = await server.health()
        return (health["active_users"], health["delivery"]["connections"]) == (1, 1)

    await eventually(only_one_is_connected)
    await app.log_mood(owner, user, 3)
    answers = await asyncio.gather(*asked)
    await owner.close()

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_waiting")
    assert int(refused.headers["retry-after"]) > 0
    assert ids(plain) == []
    assert [scores(answer) for answer in answers] == [[3]] * 20
    await client.close()


async def test_a_client_that_leaves_waits_no_longer(
    server: Server, host: asyncpg.Connection, eventually: Eventually
) -> None:
    """Its place is free at once."""
    user = await app.add_user(host)
    _, writer = await asyncio.open_connection(*server.address)
    writer.write(f"GET {SYNC}?user_id={user}&wait=25 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    began = time.monotonic()

    async def it_waits() -> bool:
        return await waiting(server) == 1

    async def nobody_waits() -> bool:
        return await waiting(server) == 0

    await eventually(it_waits)
    writer.transport.abort()
    await eventually(nobody_waits)
    assert time.monotonic() - began < 20


async def test_a_stopping_process_answers_those_who_wait(
    house: Database, start_server: StartServer, host: asyncpg.Connection, eventually: Eventually
) -> None:
    """At once, with what they can go on from, and it exits with 0."""
    leaving = start_server(house.url)
    await leaving.ready()
    user = await app.add_user(host)
    asked = asyncio.create_task(sync(leaving, user, wait=25))

    async def it_waits() -> bool:
        return await waiting(leaving) == 1

    await eventually(it_waits)
    status, took = await leaving.stop()

    answer = await asked
    assert (status, ids(answer)) == (0, [])
    assert took < 20
    assert decode(answer["next"])


async def test_a_device_that_is_removed_or_a_user_who_is_deleted_waits_no_longer(
    server: Server, host: asyncpg.Connection, eventually: Eventually
) -> None:
    """404 and 403, within a moment."""
    user, gone = await app.add_user(host), await app.add_user(host)
    device = await register(server, user, f"phone {user}", "ios")
    removed = asyncio.create_task(server.get(SYNC, user_id=user, device_token=f"phone {user}", wait="25"))
    deleted = asyncio.create_task(server.get(SYNC, user_id=gone, wait="25"))

    async def both_wait() -> bool:
        return await waiting(server) == 2

    await eventually(both_wait)
    await server.request("DELETE", f"/realtime/devices/{device['id']}", params={"user_id": user})
    await app.delete_user(host, gone)

    assert ((await removed).status_code, (await removed).json()["code"]) == (404, "unknown_device")
    assert ((await deleted).status_code, (await deleted).json()["code"]) == (403, "not_allowed")


# ---- what is refused


WRONG_QUERIES = [
    {},
    {"user_id": ""},
    {"user_id": "\x00"},
    {"user_id": "u" * 256},
    {"user_id": "ada", "device_token": ""},
    {"user_id": "ada", "limit": "0"},
    {"user_id": "ada", "limit": "501"},
    {"user_id": "ada", "limit": "many"},
    {"user_id": "ada", "wait": "-1"},
    {"user_id": "ada", "wait": "25.1"},
    {"user_id": "ada", "wait": "nan"},
]


@pytest.mark.parametrize("query", WRONG_QUERIES)
async def test_a_wrong_question_is_422(server: Server, query: dict[str, str]) -> None:
    """With a word on what is wrong."""
    answer = await server.get(SYNC, **query)
    assert answer.status_code == 422
    assert answer.json()["code"] == "malformed"


WRONG_ACKS: list[Any] = [
    [],
    {"position": "x"},
    {"user_id": "ada", "ids": [0]},
    {"user_id": "ada", "ids": [1 << 63]},
    {"user_id": "ada", "ids": ["x"]},
    {"user_id": "ada", "ids": list(range(1, 502))},
    {"user_id": "ada", "position": 7},
    {"user_id": "ada", "position": ""},
    {"user_id": "ada", "position": "\ud800"},
    {"user_id": "ada", "device_token": "\x00"},
    {"user_id": "ada", "x": 1},
]


@pytest.mark.parametrize("ack", WRONG_ACKS)
async def test_a_wrong_ack_is_422(server: Server, ack: Any) -> None:
    """Never an error of ours."""
    answer = await server.request(
        "POST", f"{SYNC}/ack", content=json.dumps(ack), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["code"] == "malformed"


async def test_an_unknown_device_is_404(server: Server, host: asyncpg.Connection) -> None:
    """Also one of another user; the token is not repeated, neither in the answer nor in the log."""
    user, other = await app.add_user(host), await app.add_user(host)
    await register(server, other, f"secret {other}", "ios")
    who = {"user_id": user, "device_token": f"secret {other}"}

    answers = [
        await server.get(SYNC, **who),
        await server.get(SYNC, **who, wait="25"),
        await server.request("POST", f"{SYNC}/ack", json={**who, "ids": [1]}),
        await server.request("POST", SYNC, json={**who, "actions": []}),
    ]

    assert [answer.status_code for answer in answers] == [404] * 4
    assert {answer.json()["code"] for answer in answers} == {"unknown_device"}
    assert "secret" not in "".join(answer.text for answer in answers)
    assert f"secret {other}" not in server.log

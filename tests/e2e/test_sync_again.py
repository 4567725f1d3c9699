"""What a client refused comes again over HTTP too, when its time has come, until its id is acknowledged."""

import asyncio
import json
import time

import asyncpg
import pytest

from tests.e2e.conftest import Connect, Eventually
from tests.e2e.test_devices import register
from tests.e2e.test_sync import acked, contents, ids, sync
from tests.support import host as app
from tests.support.server import Server

RECORDS = "SELECT array_agg(r::text || r.xmin::text ORDER BY id) FROM realtime_redeliveries AS r"


async def refuse(
    host: asyncpg.Connection, row_id: int, user: str, device_id: int | None, *, due_in: float = -1
) -> None:
    """Leave what a refusal leaves: a record that is due in so many seconds, and a position that has gone on."""
    await host.execute(
        "INSERT INTO realtime_redeliveries (event_id, user_id, device_id, nacks, next_attempt_at)"
        " VALUES ($1, $2, $3, 1, now() + make_interval(secs => $4))",
        row_id,
        user,
        device_id,
        due_in,
    )


async def refused(host: asyncpg.Connection, user: str) -> list[int]:
    rows = await host.fetch("SELECT event_id FROM realtime_redeliveries WHERE user_id = $1 ORDER BY id", user)
    return [row[0] for row in rows]


async def phone_of(server: Server, user: str, name: str = "phone") -> dict[str, int]:
    return await register(server, user, f"{name} {user}", "ios")


async def test_it_comes_last_and_changes_nothing_until_its_id_is_acknowledged(
    server: Server, host: asyncpg.Connection
) -> None:
    """Events and sync rows, as they were, to their device only; an ack of a position settles none of it."""
    user = await app.add_user(host)
    phone, _ = await phone_of(server, user), await phone_of(server, user, "tablet")
    mine, other = {"device_token": f"phone {user}"}, {"device_token": f"tablet {user}"}
    event = await app.publish(host, user, "badge_earned", badge="first")
    row = await app.queue_sync(host, user)
    early = await app.publish(host, user, "badge_earned", badge="second")
    first = await sync(server, user, **mine)
    for one in (event, row):
        await refuse(host, one, user, phone["id"])
    await refuse(host, early, user, phone["id"], due_in=3600)
    assert await acked(server, user, **mine, position=first["next"]) == 0
    news = await app.publish(host, user, "badge_earned", badge="third")
    before = await contents(host, user), await host.fetchval(RECORDS)

    answers = [await sync(server, user, **mine, position=first["next"]) for _ in range(2)]
    elsewhere = await sync(server, user, **other)

    assert await contents(host, user) == before[0]
    assert await host.fetchval(RECORDS) == before[1]
    assert ids(answers[0]) == ids(answers[1]) == [news, event, row]
    assert answers[0]["messages"][1:] == first["messages"][:2]
    assert ids(elsewhere) == [event, row, early, news]
    assert ids(await sync(server, user, **mine, position=first["next"], limit=2)) == [news, event]

    assert await acked(server, user, **mine, position=answers[0]["next"]) == 1
    assert ids(await sync(server, user, **mine)) == [event, row]
    assert await acked(server, user, **mine, ids=[event, row]) == 2
    assert ids(await sync(server, user, **mine)) == []
    assert await acked(server, user, **mine, ids=[event, row]) == 0
    assert await refused(host, user) == [early]
    assert not await host.fetchval("SELECT bool_or(NOT synced) FROM sync_queue WHERE user_id = $1", user)


async def test_it_can_be_acknowledged_before_it_is_due_and_where_others_had_it(
    server: Server, host: asyncpg.Connection
) -> None:
    """The record goes, and that counts as a change."""
    user = await app.add_user(host)
    phone = await phone_of(server, user)
    event = await app.publish(host, user, "badge_earned")
    await host.execute(
        "UPDATE realtime_events SET delivered = true, delivered_at = now() WHERE id = $1", event
    )
    await refuse(host, event, user, phone["id"], due_in=3600)

    assert await acked(server, user, device_token=f"phone {user}", ids=[event]) == 1

    assert await refused(host, user) == []


async def test_nobody_settles_what_another_refused(server: Server, host: asyncpg.Connection) -> None:
    """Neither another user nor another device, nor a client without one; nor is it given to them."""
    user, stranger = await app.add_user(host), await app.add_user(host)
    phone = await phone_of(server, user)
    await phone_of(server, user, "tablet")
    event, plain = [await app.publish(host, user, "badge_earned", number=number) for number in range(2)]
    await refuse(host, event, user, phone["id"])
    await refuse(host, plain, user, None)

    await host.execute("UPDATE realtime_events SET delivered = true WHERE id = $1", event)
    tablet = {"device_token": f"tablet {user}"}
    had = await sync(server, user, **tablet)

    assert ids(await sync(server, stranger)) == []
    assert ids(await sync(server, user, **tablet, position=had["next"])) == []
    assert ids(await sync(server, user)) == [plain]
    for asks, device in ((stranger, {}), (user, tablet)):
        await acked(server, asks, **device, ids=[event, plain])
    assert await acked(server, user, ids=[event]) == 0
    assert await refused(host, user) == [event, plain]

    assert await acked(server, user, ids=[plain]) == 1
    assert await refused(host, user) == [event]


async def test_what_is_held_is_settled_later(
    server: Server, host: asyncpg.Connection, eventually: Eventually
) -> None:
    """The ack does not wait for it."""
    user = await app.add_user(host)
    phone = await phone_of(server, user)
    event = await app.publish(host, user, "badge_earned")
    await refuse(host, event, user, phone["id"])

    async with host.transaction():
        await host.execute("SELECT FROM realtime_redeliveries WHERE user_id = $1 FOR UPDATE", user)
        await acked(server, user, device_token=f"phone {user}", ids=[event])
        assert await refused(host, user) == [event]

    async def settled() -> bool:
        return not await refused(host, user)

    await eventually(settled)


async def test_it_ends_the_first_wait_and_no_other(server: Server, host: asyncpg.Connection) -> None:
    """An app that was just woken has it at once; one that goes on asking does not spin."""
    user = await app.add_user(host)
    phone = await phone_of(server, user)
    event = await app.publish(host, user, "badge_earned")
    first = await sync(server, user, device_token=f"phone {user}")
    await acked(server, user, device_token=f"phone {user}", position=first["next"])
    await refuse(host, event, user, phone["id"])

    began = time.monotonic()
    woken = await sync(server, user, device_token=f"phone {user}", wait=25)
    at_once = time.monotonic() - began
    began = time.monotonic()
    going_on = await sync(server, user, device_token=f"phone {user}", wait=0.5, position=woken["next"])
    waited = time.monotonic() - began

    assert ids(woken) == ids(going_on) == [event]
    assert at_once < 20
    assert waited >= 0.5


@pytest.mark.parametrize("acks", [True, False], ids=["a client that acks", "a client that does not"])
async def test_what_is_redriven_for_a_device_arrives_there(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually, acks: bool
) -> None:
    """By its connection, by sync, and by no other of the user's; once it has it, it is not due any more."""
    user = await app.add_user(host)
    phone, _ = await phone_of(server, user), await phone_of(server, user, "tablet")
    event = await app.publish(host, user, "badge_earned")
    other = await connect(server, user, device_token=f"tablet {user}")
    await other.got(1)
    first = await sync(server, user, device_token=f"phone {user}")
    await acked(server, user, device_token=f"phone {user}", position=first["next"])
    letter = await host.fetchval(
        "INSERT INTO realtime_dead_letters (event_id, user_id, device_id, reason)"
        " VALUES ($1, $2, $3, 'nacked') RETURNING id",
        event,
        user,
        phone["id"],
    )
    assert ids(await sync(server, user, device_token=f"phone {user}")) == []

    answer = await server.request("POST", f"/realtime/dead-letters/{letter}/redrive")
    assert answer.status_code == 204
    assert ids(await sync(server, user, device_token=f"phone {user}")) == [event]
    asks = {"ack": "1"} if acks else {}
    client = await connect(server, user, device_token=f"phone {user}", **asks)
    [message] = await client.got(1)
    if acks:
        await client.send(json.dumps({"type": "ack", "seq": message["seq"]}))

    async def settled() -> bool:
        return not await refused(host, user)

    await eventually(settled)
    await asyncio.gather(client.ask(), other.ask())
    assert message["id"] == event
    assert message.get("redelivered") == (True if acks else None)
    assert client.ids == other.ids == [event]
    assert ids(await sync(server, user, device_token=f"phone {user}")) == []

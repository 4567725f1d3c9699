"""An event of a room goes only to those who were in it when it was written and still are when it is sent."""

import asyncpg
import pytest

from app.core.flight import Limits
from app.outbox.walk import PageSize
from app.scheduler.redelivery import Redelivery
from app.store.stale import EVENTS, Patience
from tests.integration.outbox.conftest import StartRig
from tests.support.host import add_user, create_room, join_room, leave_room, log_mood, post_message
from tests.support.postgres import Database
from tests.support.service import Rig, until

pytestmark = pytest.mark.every_major

TIGHT = {"limits": Limits(window=4, queue=100), "page": PageSize(rows=7)}


async def settled_as(host: asyncpg.Connection, user: str) -> list[str | None]:
    rows = await host.fetch(
        "SELECT settled_as FROM realtime_events WHERE user_id = $1 AND room_id IS NOT NULL ORDER BY id", user
    )
    return [row[0] for row in rows]


async def events_of(host: asyncpg.Connection, user: str, *, room: bool) -> list[int]:
    rows = await host.fetch(
        "SELECT id FROM realtime_events WHERE user_id = $1 AND (room_id IS NOT NULL) = $2 ORDER BY id",
        user,
        room,
    )
    return [row[0] for row in rows]


async def post(host: asyncpg.Connection, room: str, count: int) -> None:
    for _ in range(count):
        await post_message(host, "bob", room)


async def test_what_waits_for_a_slow_reader_is_withheld_when_he_leaves(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """In the queue of a live connection and among what is held back; the rest comes, in order."""
    rig = await start_rig(database.url, **TIGHT)
    room = await create_room(host, "ann", "bob")
    peer = rig.connect("ann", mute=True)
    await rig.settled(peer)
    await post(host, room, 10)
    await log_mood(host, "ann")
    await rig.caught_up()
    await until(lambda: len(peer.received) == 4)
    await leave_room(host, room, "ann")
    await post(host, room, 3)
    await log_mood(host, "ann")
    await rig.caught_up()
    peer.unmute()
    await rig.settled(peer)
    of_room = await events_of(host, "ann", room=True)
    assert peer.ids == of_room[:4] + await events_of(host, "ann", room=False)
    await rig.recorded()
    assert await settled_as(host, "ann") == [None] * 4 + ["left_room"] * 6
    assert await settled_as(host, "bob") == [None] * 13


async def test_pages_that_a_slow_reader_has_not_taken_are_withheld_when_he_leaves(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """A catch-up looks at membership page by page, and again at what it holds when somebody leaves."""
    rig = await start_rig(database.url, **TIGHT)
    room = await create_room(host, "ann", "bob")
    await post(host, room, 30)
    await log_mood(host, "ann")
    peer = rig.connect("ann", mute=True)
    await until(lambda: len(peer.received) == 4)
    await leave_room(host, room, "ann")
    await rig.caught_up()
    peer.unmute()
    await rig.settled(peer)
    assert peer.ids == (await events_of(host, "ann", room=True))[:4] + await events_of(
        host, "ann", room=False
    )
    await rig.recorded()
    assert await settled_as(host, "ann") == [None] * 4 + ["left_room"] * 26


async def test_what_was_missed_is_withheld_from_one_who_left_meanwhile(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Replay asks who is in the room now: one who was removed gets nothing, one who is back gets it all."""
    rig = await start_rig(database.url, **TIGHT)
    room = await create_room(host, "ann", "bob", "cleo")
    await post(host, room, 20)
    await host.execute("DELETE FROM room_participants WHERE user_id = 'ann'")
    await leave_room(host, room, "cleo")
    await join_room(host, room, "cleo")
    ann, cleo = rig.connect("ann"), rig.connect("cleo")
    await rig.settled()
    assert ann.ids == []
    assert cleo.ids == await events_of(host, "cleo", room=True)
    assert await settled_as(host, "ann") == ["left_room"] * 20


async def test_a_message_that_commits_after_its_recipient_left_is_withheld(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Membership was read by the transaction that wrote it; what counts is when it is sent."""
    rig = await start_rig(database.url)
    room = await create_room(host, "ann", "bob")
    peer = rig.connect("ann")
    other = await database.connect()
    async with other.transaction():
        await post(other, room, 1)
        await leave_room(host, room, "ann")
        await rig.caught_up()
    await log_mood(host, "ann")
    await rig.settled()
    assert peer.ids == await events_of(host, "ann", room=False)
    assert await settled_as(host, "ann") == ["left_room"]


async def test_a_stale_message_is_not_sent_again_to_one_who_left(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Nor is it tried again."""
    rig: Rig = await start_rig(database.url)
    room = await create_room(host, "ann", "bob")
    await add_user(host, "ann")
    await post(host, room, 3)
    await log_mood(host, "ann")
    await host.execute("UPDATE realtime_events SET delivered = true")
    await rig.caught_up()
    peer = rig.connect("ann")
    await rig.settled()
    assert peer.ids == []
    await leave_room(host, room, "ann")
    await host.execute("UPDATE realtime_events SET delivered = false, created_at = now() - interval '1 hour'")
    await rig.caught_up()
    await Redelivery(EVENTS, rig.pool, rig.hub, rig.receipts, Patience()).run()
    assert peer.ids == await events_of(host, "ann", room=False)
    assert await settled_as(host, "ann") == ["left_room"] * 3

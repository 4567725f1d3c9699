"""The tail loses its connection between reading rows and handing them over, or is kept from reading for long."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from app.core.close_codes import CloseCode
from app.outbox import tail
from tests.integration.outbox.conftest import StartRig
from tests.integration.outbox.test_retention import purge
from tests.support.host import create_room, publish
from tests.support.postgres import Database
from tests.support.server import PATIENCE
from tests.support.service import until

pytestmark = pytest.mark.every_major

WAITING = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%realtime_may_see%'"
)
HOLD = "BEGIN; LOCK room_participants IN ACCESS EXCLUSIVE MODE"
OF_ROOM = """
INSERT INTO realtime_events (event_type, user_id, payload, room_id) VALUES ('chat_message', 'ann', '{}', $1)
RETURNING id"""


async def held_tail(host: asyncpg.Connection) -> int:
    """Wait until the tail has read an event of a room and may not see who is in it; returns its backend."""
    async with asyncio.timeout(PATIENCE):
        while (pid := await host.fetchval(WAITING)) is None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
    return int(pid)


async def test_rows_read_before_and_after_a_cut_are_handed_over_once(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """What is committed between the two reads belongs to the second one alone."""
    rig = await start_rig(database.url, everyone=True)
    room = await create_room(host, "ann", "bob")
    await rig.caught_up()
    holder = await database.connect()
    await holder.execute(HOLD)
    of_room = await host.fetchval(OF_ROOM, room)
    backend = await held_tail(host)
    later = await publish(host, "ann", "story")
    await host.execute("SELECT pg_terminate_backend($1)", backend)
    await holder.execute("ROLLBACK")
    await rig.caught_up()
    last = await publish(host, "ann", "story")
    await rig.caught_up()

    assert rig.outlet.ids == [of_room, later, last]


async def test_who_was_live_is_told_of_what_retention_took_before_the_tail_came_to_it(
    database: Database, host: asyncpg.Connection, start_rig: StartRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that this process missed was delivered by another, and removed: its connections have a gap."""
    monkeypatch.setattr(tail, "LATE", timedelta(0))
    rig = await start_rig(database.url)
    room = await create_room(host, "ann", "bob")
    peer = rig.connect("ann", position="")
    await rig.settled(peer)
    holder = await database.connect()
    await holder.execute(HOLD)
    of_room = await host.fetchval(OF_ROOM, room)
    await held_tail(host)
    gone = await publish(host, "ann", "story")
    await purge(host, f"id = {gone}")
    await holder.execute("ROLLBACK")
    await until(lambda: peer.close_code is not None)

    assert peer.close_code == CloseCode.RESTART
    again = rig.connect("ann", position=peer.received[-1].body["position"])
    await rig.settled(again)
    assert peer.ids == [of_room]
    assert (again.control[0]["resumed"], again.control[0]["reason"]) == (False, "retention")

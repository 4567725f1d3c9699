"""The tail loses its connection between reading rows and handing them over."""

import asyncio

import asyncpg
import pytest

from tests.integration.outbox.conftest import StartRig
from tests.support.host import create_room, publish
from tests.support.postgres import Database
from tests.support.server import PATIENCE

pytestmark = pytest.mark.every_major

WAITING = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%realtime_may_see%'"
)


async def test_rows_read_before_and_after_a_cut_are_handed_over_once(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """What is committed between the two reads belongs to the second one alone."""
    rig = await start_rig(database.url, everyone=True)
    room = await create_room(host, "ann", "bob")
    await rig.caught_up()
    holder = await database.connect()
    await holder.execute("BEGIN; LOCK room_participants IN ACCESS EXCLUSIVE MODE")
    of_room = await host.fetchval(
        "INSERT INTO realtime_events (event_type, user_id, payload, room_id)"
        " VALUES ('chat_message', 'ann', '{}', $1) RETURNING id",
        room,
    )
    async with asyncio.timeout(PATIENCE):
        while (tail := await host.fetchval(WAITING)) is None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
    later = await publish(host, "ann", "story")
    await host.execute("SELECT pg_terminate_backend($1)", tail)
    await holder.execute("ROLLBACK")
    await rig.caught_up()
    last = await publish(host, "ann", "story")
    await rig.caught_up()

    assert rig.outlet.ids == [of_room, later, last]

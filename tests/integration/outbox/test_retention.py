"""Rows that retention removes before a reader came to them: the reader is told."""

import asyncpg
import pytest

from app.core.close_codes import CloseCode
from app.core.flight import Limits
from app.outbox.walk import PageSize
from tests.integration.outbox.conftest import StartRig
from tests.support.host import log_mood, log_moods
from tests.support.postgres import Database
from tests.support.service import until

pytestmark = pytest.mark.every_major


async def purge(host: asyncpg.Connection, where: str) -> None:
    """Remove rows as the purge does, in a transaction with how far it came."""
    async with host.transaction():
        await host.execute(f"DELETE FROM realtime_events WHERE {where}")
        await host.execute("UPDATE realtime_retention SET purged_through = clock_timestamp()")


@pytest.mark.parametrize("removed", ["id > 30 AND id <= 40", "id > 4"])
async def test_a_reader_whose_rows_are_removed_in_mid_read_is_told_when_it_comes_back(
    database: Database, host: asyncpg.Connection, start_rig: StartRig, removed: str
) -> None:
    """It is closed with a code after which clients come back, and goes on where it was, with the reason."""
    rig = await start_rig(database.url, page=PageSize(rows=4), limits=Limits(window=4))
    first = rig.connect("u", position="")
    await rig.settled(first)
    position = first.control[0]["position"]
    await log_moods(host, ["u"], 60)
    await rig.settled(first)
    await rig.recorded()

    slow = rig.connect("u", position=position, mute=True)
    await until(lambda: len(slow.received) == 4)
    await purge(host, removed)
    slow.unmute()
    await until(lambda: slow.close_code is not None)
    assert slow.close_code == CloseCode.RESTART
    left = [row[0] for row in await host.fetch("SELECT id FROM realtime_events ORDER BY id")]
    assert set(slow.ids) <= {*left, *range(1, 5)}

    again = rig.connect("u", position=slow.received[-1].body["position"])
    await rig.settled(again)
    told = again.control[0]
    assert (told["resumed"], told["reason"]) == (False, "retention")
    assert again.ids == [row_id for row_id in left if row_id > slow.ids[-1]]

    # Told once, it is left in peace by the next purge.
    await log_mood(host, "u")
    await rig.settled(again)
    assert again.close_code is None


async def test_a_reader_that_has_everything_is_not_disturbed(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Retention that ends before what a reader began with takes nothing from it."""
    rig = await start_rig(database.url, page=PageSize(rows=4), limits=Limits(window=4))
    await log_moods(host, ["u"], 10)
    await host.execute("UPDATE realtime_events SET delivered = true, delivered_at = now()")
    await rig.caught_up()
    first = rig.connect("u", position="")
    await rig.settled(first)
    await log_moods(host, ["u"], 30)
    await rig.settled(first)
    slow = rig.connect("u", position=first.control[0]["position"], mute=True)
    await until(lambda: len(slow.received) == 4)
    async with host.transaction():
        await host.execute("DELETE FROM realtime_events WHERE id <= 10")
        await host.execute(
            "UPDATE realtime_retention SET purged_through = (SELECT min(created_at) - interval '1 second'"
            " FROM realtime_events)"
        )
    slow.unmute()
    await rig.settled(slow)
    assert len(slow.received) == 30
    assert slow.close_code is None

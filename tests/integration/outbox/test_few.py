"""The read for few rows and the one for many find the same."""

import asyncpg
import pytest

from app.core.snapshot import Snapshot
from app.store import outbox_sql, reads
from app.store.reads import Unseen
from tests.integration.outbox.conftest import StartRig
from tests.support.host import add_user, log_mood, log_moods, publish
from tests.support.postgres import Database

pytestmark = pytest.mark.every_major


@pytest.mark.parametrize("in_progress", [False, True])
async def test_few_rows_are_those_of_the_read_for_many(host: asyncpg.Connection, in_progress: bool) -> None:
    """Of all three tables, in order; one more than there may be, and it is a matter for the other read."""
    user = await add_user(host)
    seen = Snapshot.parse(await host.fetchval("SELECT pg_current_snapshot()::text"))
    await host.execute(
        "INSERT INTO sync_queue (user_id, action_type, payload) VALUES ($1, 'refresh', '{}')", user
    )
    await log_mood(host, user)
    await host.execute("SELECT realtime_disconnect($1)", user)
    await log_mood(host, user)
    await reads.create_incarnation(host)
    if in_progress:  # as a reader would have it to whom all of these had not been committed
        here = Snapshot.parse(await host.fetchval("SELECT pg_current_snapshot()::text"))
        seen = Snapshot(here.xmax, frozenset(range(seen.xmax, here.xmax)))

    assert await reads.few_unseen_by_tail(host, seen, limit=4) is None  # which notes the incarnation

    async with host.transaction(isolation="repeatable_read"):  # whoever else has a transaction meanwhile
        few = await reads.few_unseen_by_tail(host, seen, limit=4)
        many = await reads.unseen_by_tail(host, Unseen(seen), limit=5, limit_bytes=1 << 20)

    assert few is not None
    assert many is not None
    assert [row[0] for row in few.rows] == ["s", "e", "c", "e"]
    assert [tuple(row) for row in few.rows] == [tuple(row) for row in many.rows]
    assert few.horizon.snapshot == many.horizon.snapshot
    assert few.horizon.incarnation == many.horizon.incarnation
    assert await reads.few_unseen_by_tail(host, seen, limit=3) is None


async def test_each_server_session_is_told_its_incarnation_once(
    database: Database, host: asyncpg.Connection
) -> None:
    """What one session has noted says nothing about another, and nothing is noted before there is an id."""
    seen = Snapshot.parse(await host.fetchval("SELECT pg_current_snapshot()::text"))
    other = await database.connect()

    assert await reads.few_unseen_by_tail(host, seen, limit=4) is None
    await reads.create_incarnation(host)
    assert await reads.few_unseen_by_tail(host, seen, limit=4) is None
    assert await reads.few_unseen_by_tail(other, seen, limit=4) is None
    expected = (await reads.horizon(host)).incarnation
    for connection in (host, other):
        few = await reads.few_unseen_by_tail(connection, seen, limit=4)
        assert few is not None
        assert few.horizon.incarnation == expected


async def test_a_row_that_is_large_is_not_among_the_few(host: asyncpg.Connection) -> None:
    """Its data would be left out."""
    user = await add_user(host)
    seen = Snapshot.parse(await host.fetchval("SELECT pg_current_snapshot()::text"))
    await reads.create_incarnation(host)
    await reads.few_unseen_by_tail(host, seen, limit=4)
    await publish(host, user, "small", text="x" * (outbox_sql.FEW_BYTES - 100))
    small = await reads.few_unseen_by_tail(host, seen, limit=4)
    await publish(host, user, "large", text="x" * outbox_sql.FEW_BYTES)

    assert small is not None
    assert len(small.rows) == 1
    assert await reads.few_unseen_by_tail(host, seen, limit=4) is None


async def test_very_many_rows_are_a_burst_and_a_few_are_none(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """In which no ping goes along, so that the last row does not wait for the pongs of the first."""
    user = await add_user(host)
    rig = await start_rig(database.url)
    peer = rig.connect(user)
    await rig.settled(peer)
    await log_mood(host, user)
    await rig.settled(peer)
    await log_moods(host, [user], outbox_sql.FEW_ROWS + 2)
    await rig.settled(peer)

    assert rig.outlet.bursts == [False, True]
    assert not rig.pace.rows_first

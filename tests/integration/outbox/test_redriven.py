"""An event that was redriven is found by whoever has not seen it since, also across a crash."""

from datetime import timedelta

import asyncpg
import pytest

from app.core.snapshot import MAX_XID, Snapshot
from app.store import reads
from app.store.reads import Owner, Unseen
from tests.support.host import add_user, log_mood

pytestmark = pytest.mark.every_major

OVERLAP = timedelta(minutes=5)


async def test_a_redriven_event_is_within_the_overlap_however_old_it_is(host: asyncpg.Connection) -> None:
    """Where a crash gave its transaction id out before, a snapshot calls it seen; its time of redriving does not."""
    user, other = await add_user(host), await add_user(host)
    await log_mood(host, user)
    await log_mood(host, other)
    await host.execute(
        "UPDATE realtime_events SET created_at = now() - interval '31 days', settled_as = 'expired'"
    )
    letter = await host.fetchval(
        "INSERT INTO realtime_dead_letters (event_id, user_id, reason)"
        " SELECT id, user_id, 'expired' FROM realtime_events WHERE user_id = $1 RETURNING id",
        user,
    )
    assert await host.fetchval("SELECT realtime_redrive($1)", letter)
    event, now = await host.fetchrow("SELECT id, now() FROM realtime_events WHERE user_id = $1", user)
    await reads.create_incarnation(host)
    owner = Owner(user, takes_sync=True, with_undelivered=False)
    bounds = {"limit": 10, "limit_bytes": 1 << 20}

    for ago, expected in ((OVERLAP, [event]), (timedelta(0), [])):
        # As after a crash: everything there is looks seen.
        wanted = Unseen(Snapshot(MAX_XID), since=now - ago)
        by_user = await reads.unseen_by_user(host, wanted, owner, **bounds)
        by_tail = await reads.unseen_by_tail(host, wanted, **bounds)
        assert by_user is not None
        assert by_tail is not None
        assert [row[1] for row in by_user.rows] == expected
        assert [row[1] for row in by_tail.rows if row[0] == "e"] == expected
        assert await reads.later_ids(host, wanted, owner) == expected

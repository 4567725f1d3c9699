"""What a process says of itself in the table, and who clears up after those that were killed."""

import json
import os
import socket

import asyncpg
import pytest

from app.scheduler.housekeeping import Ages, Purge
from app.store.database import Database as Pool
from tests.integration.scheduler.clients import connect_live, eventually
from tests.integration.scheduler.conftest import StartService
from tests.support.host import add_user


@pytest.mark.every_major
async def test_a_process_is_listed_while_it_lives(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """Host, pid and figures are there soon after the start, are kept fresh, and go when it stops."""
    one, other = await start_service(beat_interval=0.1), await start_service(beat_interval=0.1)
    user = await add_user(host)
    await connect_live(one, user)
    await connect_live(one, user)

    async def told() -> bool:
        rows = await host.fetch("SELECT stats FROM realtime_processes")
        return sorted(json.loads(row[0])["connections"] for row in rows) == [0, 2]

    await eventually(told)
    rows = await host.fetch("SELECT * FROM realtime_processes")
    assert {(row["host"], row["pid"]) for row in rows} == {(socket.gethostname(), os.getpid())}
    assert {json.loads(row["stats"])["users"] for row in rows} == {0, 1}
    assert json.loads(rows[0]["stats"]).keys() == {
        "connections",
        "users",
        "rows_per_second",
        "receipts_unwritten",
        "waiting",
        "crowds",
    }
    seen = rows[0]["seen_at"]

    async def seen_again() -> bool:
        query = "SELECT seen_at > $2 FROM realtime_processes WHERE id = $1"
        return await host.fetchval(query, rows[0]["id"], seen)

    await eventually(seen_again)
    await one.stop()
    assert await host.fetchval("SELECT count(*) FROM realtime_processes") == 1
    await other.stop()
    assert await host.fetchval("SELECT count(*) FROM realtime_processes") == 0


async def test_a_process_that_was_killed_is_cleared_up_after(host: asyncpg.Connection, pool: Pool) -> None:
    """Not seen for a minute, it is removed by the others; one seen a moment ago is not."""
    await host.execute(
        "INSERT INTO realtime_processes (id, host, pid, seen_at) VALUES"
        " (gen_random_uuid(), 'killed', 1, now() - interval '61 seconds'),"
        " (gen_random_uuid(), 'alive', 2, now() - interval '30 seconds')"
    )

    await Purge(pool, Ages()).run()

    assert [row[0] for row in await host.fetch("SELECT host FROM realtime_processes")] == ["alive"]


async def test_what_a_process_reported_last_is_kept_for_a_month(host: asyncpg.Connection, pool: Pool) -> None:
    """For so long it may be without an answer, and report the same again."""
    await host.execute(
        "INSERT INTO realtime_reporters (id, report, reported_at) VALUES"
        " (gen_random_uuid(), 1, now() - interval '31 days'),"
        " (gen_random_uuid(), 2, now() - interval '29 days')"
    )

    await Purge(pool, Ages()).run()

    assert [row[0] for row in await host.fetch("SELECT report FROM realtime_reporters")] == [2]

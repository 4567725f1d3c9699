"""What the jobs cost where a million events are: every statement finds its rows by index, a few at a time."""

import json
import re
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from app.scheduler.housekeeping import DAY
from app.store import retention, stale
from app.store.database import Database as Pool
from tests.integration.scheduler.rows import add_many_events

EVENTS = 1_000_000
USERS = 10_000
OLD = 0.3
"""Of this share of the events, the oldest, every third was never delivered."""


async def fill(host: asyncpg.Connection, events: int) -> None:
    """Add events from 45 days to a moment old, nearly all delivered at once, and letters for some of them."""
    written = f"now() - interval '45 days' * (1 - n / {events}.0)"
    delivered = f"(n % 3 > 0 OR n > {events} * {OLD})"
    await add_many_events(
        host,
        events,
        users=USERS,
        columns=", created_at, delivered, delivered_at",
        values=f", {written}, {delivered}, CASE WHEN {delivered} THEN {written} END",
    )
    await host.execute(
        "INSERT INTO realtime_dead_letters (event_id, user_id, reason)"
        " SELECT id, user_id, 'expired' FROM realtime_events WHERE id % 100 = 0"
    )
    await host.execute(
        "INSERT INTO realtime_redeliveries (event_id, user_id, next_attempt_at)"
        " SELECT id, user_id, now() FROM realtime_events WHERE id % 100 = 50"
    )
    await host.execute(
        """
        INSERT INTO users (id) SELECT 'user-' || n FROM generate_series(0, 1999) AS n;
        INSERT INTO users_devices (user_id, device_token, platform)
            SELECT 'user-' || n / 10, 'token-' || n, 'ios' FROM generate_series(0, 19999) AS n;
        INSERT INTO sync_queue (user_id, action_type, payload, created_at, device_id)
            SELECT d.user_id, 'refresh', '{}', now() - interval '31 days', d.id FROM users_devices AS d
        """
    )
    await host.execute("VACUUM ANALYZE")


async def explain(pool: Pool, statement: str, *arguments: Any) -> dict[str, Any]:
    """Run a statement by the plan the service uses, and undo it; returns the plan with what it really did."""
    types = {bool: "boolean", int: "bigint", float: "float8", list: "text[]", tuple: "bigint[]"}

    def literal(value: Any) -> str:
        if isinstance(value, list | tuple):
            return "ARRAY[" + ", ".join(f"'{one}'" for one in value) + f"]::{types[type(value)]}"
        return str(value)

    async with pool.driver() as connection:
        names = ", ".join(types[type(value)] for value in arguments)
        await connection.execute(f"PREPARE one ({names}) AS {statement}")
        values = ", ".join(literal(value) for value in arguments)
        undone = connection.transaction()
        await undone.start()
        found = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE one ({values})")
        await undone.rollback()
        await connection.execute("DEALLOCATE one")
        plan: dict[str, Any] = found[0]["Plan"]
        return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes, from the top."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def looked_at(plan: dict[str, Any], table: str) -> int:
    """How many rows of a table were read, with those thrown away."""
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in nodes(plan)
        if node.get("Relation Name") == table and re.search("Scan", node["Node Type"])
    )


def scans_of_all(plan: dict[str, Any]) -> set[str]:
    """Tables that were read from end to end."""
    return {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"}


@pytest.mark.timeout(300)
async def test_every_job_reads_a_million_events_by_index(host: asyncpg.Connection, pool: Pool) -> None:
    """A batch looks at a bounded number of rows wherever it begins; a round looks at its users' pending ones."""
    await fill(host, EVENTS)
    first, last = await host.fetchrow("SELECT min(id), max(id) FROM realtime_events")
    limits = retention.EXAMINED, retention.CHANGED
    for sweep, age in ((retention.EXPIRE_EVENTS, 30 * DAY), (retention.PURGE_EVENTS, 7 * DAY)):
        for after_id in (0, first + int(EVENTS * OLD) // 2, last - 20_000):
            plan = await explain(pool, sweep.statement, after_id, *limits, age)
            assert scans_of_all(plan) == set()
            # Those examined, and once more those that are locked, and changed.
            assert looked_at(plan, "realtime_events") <= retention.EXAMINED + 2 * retention.CHANGED
            for table in ("realtime_dead_letters", "realtime_redeliveries"):
                assert looked_at(plan, table) <= retention.EXAMINED + retention.CHANGED

    plan = await explain(pool, retention.EXPIRE_SYNC_ROWS.statement, 0, *limits, 30 * DAY)
    assert scans_of_all(plan) == set()
    assert looked_at(plan, "sync_queue") <= retention.EXAMINED + 2 * retention.CHANGED
    assert looked_at(plan, "users_devices") <= 10 * retention.CHANGED

    users = [f"user-{n}" for n in range(200)]
    pending = await host.fetchval(
        "SELECT count(*) FROM realtime_events WHERE user_id = ANY($1) AND NOT delivered AND settled_as IS NULL",
        users,
    )
    plan = await explain(pool, stale.EVENTS.find, users, 30.0, stale.LOOKED_AT, stale.PER_USER)
    assert scans_of_all(plan) == set()
    assert "realtime_events_pending" in json.dumps(plan)
    assert 0 < looked_at(plan, "realtime_events") <= pending
    assert looked_at(plan, "realtime_dead_letters") + looked_at(plan, "realtime_redeliveries") <= pending

    due = tuple(
        row[0] for row in await host.fetch("SELECT id FROM realtime_events WHERE NOT delivered LIMIT 500")
    )
    plan = await explain(pool, stale.EVENTS.take, due, 30.0, 3600.0)
    assert scans_of_all(plan) == set()
    assert looked_at(plan, "realtime_events") <= 2 * len(due)


@pytest.mark.timeout(300)
async def test_a_walk_through_old_rows_stays_linear(host: asyncpg.Connection, pool: Pool) -> None:
    """Purging a quarter of a million rows costs each batch the same: the last do not step over the first."""
    await fill(host, EVENTS // 3)
    costs: list[float] = []
    after_id: int | None = 0
    changed = 0
    async with pool.driver() as connection:
        while after_id is not None:
            began = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
            batch = await retention.PURGE_EVENTS.batch(connection, after_id, 7 * DAY)
            assert batch is not None
            ended = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
            costs.append(ended - began)
            changed += batch.changed
            after_id = batch.after_id

    old, left = await host.fetchrow(
        "SELECT count(*), count(*) FILTER (WHERE delivered AND id % 50 > 0)"
        " FROM realtime_events WHERE created_at < now() - interval '7 days'"
    )
    tenth = len(costs) // 10
    assert left == 0
    assert changed > EVENTS // 5
    assert len(costs) <= changed / retention.CHANGED + (old + changed) / retention.EXAMINED + 2
    assert sorted(costs[-tenth:])[tenth // 2] < 10 * sorted(costs[:tenth])[tenth // 2]

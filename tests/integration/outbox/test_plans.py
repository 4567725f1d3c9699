"""What reading and marking cost where a million events are: by what is unseen, not by what there is."""

import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from app.core.snapshot import Snapshot
from app.outbox.walk import PageSize, Walk
from app.store import (
    collapsing,
    devices,
    inspection,
    outbox_sql,
    reads,
    receipts,
    redeliveries,
    settling,
    sync,
)
from app.store.database import LOOKUPS
from app.store.reads import Owner, Unseen
from tests.support.host import row_keys
from tests.support.postgres import Database

EVENTS = 1_000_000
SYNC_ROWS = 100_000
USERS = 10_000
TRANSACTIONS = 50_000
"""Transaction ids that the rows are spread over."""
BIG = {"realtime_events", "sync_queue", "users_devices"}
WHO = "user-77"
FEW = 20
"""Rows of the user that are unseen, undelivered and sync rows, each."""
OVERLAP = timedelta(minutes=5)

# Every table past its triggers; the rows of a month, all delivered, those of `FEW` aside.
FILL = f"""
SET session_replication_role = replica;
DO $$ BEGIN FOR i IN 1..{TRANSACTIONS} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$;
INSERT INTO users SELECT 'user-' || n FROM generate_series(0, {USERS} - 1) AS n;
INSERT INTO users_devices (user_id, device_token, platform)
    SELECT 'user-' || n, 'token-' || n, 'ios' FROM generate_series(0, {USERS} - 1) AS n;
INSERT INTO realtime_events (user_id, event_type, payload, xid, delivered, delivered_at, created_at)
    SELECT 'user-' || n % {USERS}, 'mood_update', '{{"mood_score": 7, "event_type": "mood_logged"}}',
           (800 + n::bigint * {TRANSACTIONS} / {EVENTS})::text::xid8, true, now(),
           now() - interval '30 days' * (1 - n / {EVENTS}.0)
    FROM generate_series(1, {EVENTS}) AS n;
INSERT INTO sync_queue (user_id, action_type, payload, xid, synced, synced_at, created_at)
    SELECT 'user-' || n % {USERS}, 'refresh', '{{}}',
           (800 + n::bigint * {TRANSACTIONS} / {SYNC_ROWS})::text::xid8, true, now(),
           now() - interval '30 days' * (1 - n / {SYNC_ROWS}.0)
    FROM generate_series(1, {SYNC_ROWS}) AS n;
UPDATE realtime_events SET redriven_at = now() - interval '30 days' * (1 - id % 1000 / 1000.0)
    WHERE id % 100 = 50;
UPDATE realtime_events SET delivered = false WHERE id IN
    (SELECT id FROM realtime_events WHERE user_id = '{WHO}' ORDER BY id LIMIT {FEW});
"""


@dataclass(frozen=True)
class Cost:
    """What a statement took: 8 KiB pages touched, rows looked at in the big tables, and what is wrong."""

    buffers: int
    looked_at: int
    read_whole: frozenset[str]
    plan: str


class Meter:
    """A connection as the service's, which also tells what each statement cost."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.costs: list[Cost] = []

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        await self.explain(statement, *arguments)
        return await self.connection.fetch(statement, *arguments)

    async def fetchval(self, statement: str, *arguments: Any) -> Any:
        await self.explain(statement, *arguments)
        return await self.connection.fetchval(statement, *arguments)

    async def explain(self, statement: str, *arguments: Any) -> Cost:
        """Run it by its generic plan, as the driver's prepared statements are, and undo it."""
        await self.connection.execute(f"PREPARE one AS {statement}")
        values = f"({', '.join(map(literal, arguments))})" if arguments else ""
        undone = self.connection.transaction()
        await undone.start()
        text = await self.connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE one{values}")
        await undone.rollback()
        await self.connection.execute("DEALLOCATE one")
        plan = json.loads(text)[0]["Plan"]
        self.costs.append(
            Cost(
                plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
                sum(looked_at(node) for node in nodes(plan)),
                frozenset(filter(None, map(read_whole, nodes(plan)))),
                json.dumps(plan, indent=1),
            )
        )
        return self.costs[-1]


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return "'{" + ",".join(str(one) for one in value) + "}'"
    return f"'{value}'"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def looked_at(node: dict[str, Any]) -> int:
    if node.get("Relation Name") not in BIG or "Scan" not in node["Node Type"]:
        return 0
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return math.ceil((node["Actual Rows"] + removed) * node["Actual Loops"])


def read_whole(node: dict[str, Any]) -> str | None:
    """The big table that a node reads from end to end, in its own order or an index's."""
    whole = node["Node Type"] == "Seq Scan" or ("Index" in node["Node Type"] and "Index Cond" not in node)
    table = node.get("Relation Name", "")
    return table if whole and table in BIG and node["Actual Loops"] else None


@asynccontextmanager
async def metered(database: Database) -> AsyncIterator[Meter]:
    yield Meter(await database.connect(server_settings=LOOKUPS))


async def snapshot(connection: asyncpg.Connection) -> Snapshot:
    return Snapshot.parse(await connection.fetchval("SELECT pg_current_snapshot()::text"))


async def add(host: asyncpg.Connection, user: str, count: int, table: str = "realtime_events") -> None:
    """Rows of one user, past the triggers, a thousand in a transaction."""
    label = "event_type" if table == "realtime_events" else "action_type"
    for begun in range(0, count, 1000):
        await host.execute(
            f"INSERT INTO {table} (user_id, {label}, payload)"
            f" SELECT $1, 'mood_update', '{{}}' FROM generate_series(1, $2::int)",
            user,
            min(1000, count - begun),
        )


@pytest.mark.every_major
@pytest.mark.timeout(300)
async def test_every_statement_costs_what_is_unseen(database: Database, host: asyncpg.Connection) -> None:
    """On a million events: no table and no index from end to end, pages by the unseen, walks linear."""
    for statement in FILL.strip().split(";\n"):
        await host.execute(statement)
    await host.execute("VACUUM ANALYZE")
    await reads.create_incarnation(host)
    seen = await snapshot(host)
    # Some transactions that were in progress then, all of them with rows that would be found.
    crowded = Snapshot(seen.xmax, frozenset(range(2000, 2016)))
    await add(host, WHO, FEW)
    await add(host, WHO, FEW, "sync_queue")
    await add(host, "user-78", FEW)

    async with metered(database) as meter:
        await read_little(meter, seen, crowded)
        await mark_little(meter, host)
        await walk_linearly(meter, host)


async def read_little(meter: Meter, seen: Snapshot, crowded: Snapshot) -> None:
    """The reads of tail and connections, with few unseen rows, and some transactions that were in progress."""
    since = datetime.now(UTC) - OVERLAP
    young = EVENTS // (30 * 24 * 12) + 3 * FEW  # events within the overlap
    rows = EVENTS // TRANSACTIONS + SYNC_ROWS // TRANSACTIONS  # of one transaction
    page = (500, 1 << 20)
    ids = (reads.IDS_AT_ONCE, 0)
    me = (WHO, True, True)
    now = Snapshot(seen.xmax + 1000)
    cheap = {
        # Statement, arguments beyond the position's, rows it may look at when few are unseen.
        "TAIL": (outbox_sql.TAIL, page, (), 8 * FEW),
        "TAIL_OVERLAP": (outbox_sql.TAIL_OVERLAP, page, (since,), 4 * young + 40_000 + SYNC_ROWS),
        "TAIL_IDS": (outbox_sql.TAIL_IDS, ids, (), 4 * FEW),
        "TAIL_IDS_OVERLAP": (outbox_sql.TAIL_IDS_OVERLAP, ids, (since,), 4 * young + 40_000 + SYNC_ROWS),
        "USER": (outbox_sql.USER, page, (*me, None), 16 * FEW),
        "USER_OVERLAP": (outbox_sql.USER_OVERLAP, page, (*me, None, since), 16 * FEW + 500),
        "USER_IDS": (outbox_sql.USER_IDS, ids, me, 8 * FEW),
        "USER_IDS_OVERLAP": (outbox_sql.USER_IDS_OVERLAP, ids, (*me, since), 8 * FEW + 500),
    }
    for position, more in ((seen, 0), (crowded, 16 * 4 * rows)):
        few = (position.xmax, outbox_sql.FEW_ROWS, list(position.in_progress))
        calls = {
            name: (statement, (*Unseen(position, now).arguments(), *bounds, *others), bound)
            for name, (statement, bounds, others, bound) in cheap.items()
        }
        calls["TAIL_FEW"] = (outbox_sql.TAIL_FEW, few[:2], 4 * FEW)
        calls["TAIL_FEW_IN_PROGRESS"] = (outbox_sql.TAIL_FEW_IN_PROGRESS, few, 4 * FEW)
        for name, (statement, arguments, bound) in calls.items():
            cost = await meter.explain(statement, *arguments)
            assert not cost.read_whole, f"{name} reads {set(cost.read_whole)} whole\n{cost.plan}"
            assert 0 < cost.looked_at <= bound + more, f"{name} looks at {cost.looked_at}\n{cost.plan}"
            assert cost.buffers <= 400 + 8 * (bound + more), f"{name} takes {cost.buffers}\n{cost.plan}"
    cost = await meter.explain(outbox_sql.HORIZON)
    assert (cost.read_whole, cost.looked_at) == (frozenset(), 0)
    some = list(range(1, EVENTS, EVENTS // 500))
    cost = await meter.explain(outbox_sql.BY_IDS, some, 1 << 20, "nobody")
    assert not cost.read_whole
    assert cost.looked_at <= 2 * len(some)


async def mark_little(meter: Meter, host: asyncpg.Connection) -> None:
    """Receipts, positions, connecting devices and adoption."""
    pending = "SELECT id, created_at FROM {} WHERE NOT {} LIMIT 500".format
    pending_events = await row_keys(host, pending("realtime_events", "delivered"))
    pending_sync = await row_keys(host, pending("sync_queue", "synced"))
    events, sync_rows = ([row_id for row_id, _ in rows] for rows in (pending_events, pending_sync))
    when, when_sync = ([time for _, time in rows] for rows in (pending_events, pending_sync))
    devices_known = await host.fetch("SELECT id, user_id FROM users_devices LIMIT 500")
    known = [row["id"] for row in devices_known]
    here = str(await snapshot(host))
    columns = [
        known,
        [row["user_id"] for row in devices_known],
        [0] * len(known),
        [f'"{here}"'] * len(known),
        [f'"{here}"'] * len(known),
        [5] * len(known),
        [f'"{datetime.now(UTC)}"'] * len(known),
        ["1.00"] * len(known),
    ]
    await host.execute(
        "INSERT INTO realtime_events (user_id, event_type, payload, collapse_key, xid)"
        " SELECT 'keyed', 'presence', '{}', 'k' || n % 50, '3' FROM generate_series(1, 2000) AS n"
    )
    await host.execute("ANALYZE realtime_events")
    keyed = [
        row[0] for row in await host.fetch("SELECT id FROM realtime_events WHERE user_id = 'keyed' LIMIT 500")
    ]
    keys = [f"key-{number}" for number in range(100)]
    uploaded = keys, ["read"] * len(keys), ['"{}"'] * len(keys)
    for statement, arguments, rows in (
        (receipts._MARK_EVENTS, (events, when), len(events)),
        (receipts._MARK_SYNC, (sync_rows, when_sync), len(sync_rows)),
        (receipts._LEFT_EVENTS, (events, when), len(events)),
        (receipts._LEFT_SYNC, (sync_rows, when_sync), len(sync_rows)),
        (redeliveries._PRESENT, (events + sync_rows,), len(events) + len(sync_rows)),
        (receipts._GENERATIONS, (known,), len(known)),
        (receipts._MOVE, columns, len(known)),
        (devices._CONNECT, (WHO, "token-77"), 1),
        (devices._FIND, (WHO, "token-77"), 1),
        (collapsing._SUPERSEDED, (keyed, 1, [], None, True), 2 * len(keyed)),
        (settling._SETTLE, (events, "collapsed"), len(events)),
        (sync._NAMED, (events + sync_rows, WHO, True, 1), len(events) + len(sync_rows)),
        (sync._UPLOAD, (WHO, 1, *uploaded), 3 * len(keys)),
        (outbox_sql.COVERED_UNDELIVERED, (WHO, 10**9, [], 1, [], 0, True, None), 3 * FEW),
        (inspection.ADOPT.format(table="realtime_events"), (5000,), 0),
    ):
        cost = await meter.explain(statement, *arguments)
        assert not cost.read_whole, cost.plan
        assert cost.looked_at <= 4 * rows, cost.plan


async def walk_linearly(meter: Meter, host: asyncpg.Connection) -> None:
    """Ten thousand and forty thousand unseen rows, page by page, for the tail and for their user."""
    buffers: dict[tuple[bool, int], int] = {}
    rows: dict[tuple[bool, int], int] = {}
    for count in (10_000, 40_000):
        before = await snapshot(host)
        await add(host, f"new-{count}", count)
        await host.execute("ANALYZE realtime_events")
        for owner in (None, Owner(f"new-{count}", takes_sync=True, with_undelivered=True)):
            await walk(meter, Unseen(before), owner, count)
            buffers[owner is None, count] = sum(cost.buffers for cost in meter.costs)
            rows[owner is None, count] = sum(cost.looked_at for cost in meter.costs)
    for whose in (True, False):
        assert buffers[whose, 40_000] < 5 * buffers[whose, 10_000], buffers
        # All ids are gone through once for each 16,384 of them: once and three times here.
        assert rows[whose, 40_000] < 8 * rows[whose, 10_000], rows


async def walk(meter: Meter, wanted: Unseen, owner: Owner | None, count: int) -> None:
    """Read all there is, metered."""
    meter.costs.clear()

    @asynccontextmanager
    async def lend() -> AsyncIterator[asyncpg.Connection]:
        yield meter  # type: ignore[misc]

    reading = Walk(lend, wanted, owner, PageSize())
    found = len((await reading.first()).rows)
    while reading.more:
        found += len(await reading.later())
    assert found == count
    assert not any(cost.read_whole for cost in meter.costs)

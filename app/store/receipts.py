"""Write down what has reached its user.

Rows are taken in id order and those that somebody holds are skipped: whoever waits for a row while
holding another can deadlock with the host's cascade, and then the host is the victim. The commit is
asynchronous, since a receipt lost in a crash costs a duplicate and never an event.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import asyncpg

from app.core.position import Position

# Written so that the planner cannot prove it from the predicate of the index on what is pending: it would
# walk that index whole, as long as its statistics say that next to nothing is.
_PENDING = "NOT coalesce({flag}, true)"
# Most receipts are of one table alone: a statement that asks for its own asynchronous commit is then all,
# where a transaction around it would be four round trips.
_MARK = """
WITH mine AS MATERIALIZED (
    SELECT id FROM {table} WHERE id = ANY($1::bigint[]) AND {pending}
    ORDER BY id FOR UPDATE SKIP LOCKED
), commit AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
UPDATE {table} AS t SET {flag} = true, {at} = clock_timestamp(), next_attempt_at = NULL
FROM commit, mine WHERE t.id = mine.id
RETURNING t.id"""
_LEFT = "SELECT id FROM {table} WHERE id = ANY($1::bigint[]) AND {pending}"
_EVENTS = {
    "table": "realtime_events",
    "flag": "delivered",
    "at": "delivered_at",
    "pending": _PENDING.format(flag="delivered"),
}
_SYNC_ROWS = {
    "table": "sync_queue",
    "flag": "synced",
    "at": "synced_at",
    "pending": _PENDING.format(flag="synced"),
}
_MARK_EVENTS, _LEFT_EVENTS = _MARK.format(**_EVENTS), _LEFT.format(**_EVENTS)
_MARK_SYNC, _LEFT_SYNC = _MARK.format(**_SYNC_ROWS), _LEFT.format(**_SYNC_ROWS)
_GENERATIONS = "SELECT id, generation FROM users_devices WHERE id = ANY($1::bigint[])"


def _covers(more: str, less: str) -> str:
    """Whether one snapshot has every transaction that the other has."""
    return f"""(pg_snapshot_xmax({less}) <= pg_snapshot_xmax({more}) AND NOT EXISTS (
        SELECT FROM pg_snapshot_xip({more}) AS r(xid) WHERE pg_visible_in_snapshot(r.xid, {less})))"""


# Positions of two incarnations cannot be compared; a connection has only those of the present one.
_FORWARD = f"""
    d.position_seen IS NULL OR d.position_incarnation IS DISTINCT FROM w.incarnation
    OR {_covers("w.seen", "d.position_seen")} AND (
        d.position_reading IS NULL OR {_covers("w.seen", "d.position_reading")}
        OR (w.reading::text = d.position_reading::text AND w.after_id >= d.position_after_id))"""

_MOVE = f"""
WITH wanted AS MATERIALIZED (
    SELECT id, generation, seen::pg_snapshot, reading::pg_snapshot, after_id, taken_at, incarnation
    FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bigint[],
                $6::timestamptz[], $7::text[])
        AS w(id, generation, seen, reading, after_id, taken_at, incarnation)
), mine AS MATERIALIZED (
    SELECT d.id FROM users_devices AS d WHERE d.id = ANY($1::bigint[]) ORDER BY d.id FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE users_devices AS d
    SET position_seen = w.seen, position_reading = w.reading, position_after_id = w.after_id,
        position_taken_at = w.taken_at, position_incarnation = w.incarnation,
        last_active = greatest(d.last_active, clock_timestamp())
    FROM mine JOIN wanted AS w ON w.id = mine.id
    WHERE d.id = mine.id AND d.generation = w.generation AND ({_FORWARD})
)
SELECT id FROM mine"""

DeviceKey = tuple[int, int]
"""A device's id and the generation of the connection that speaks for it."""

DevicePositions = Mapping[DeviceKey, Position]
"""What devices have now."""


@dataclass(frozen=True, slots=True)
class Held:
    """What somebody held and what must be tried again."""

    events: frozenset[int]
    sync_rows: frozenset[int]
    devices: frozenset[DeviceKey]

    def __len__(self) -> int:
        return len(self.events) + len(self.sync_rows) + len(self.devices)


async def mark(
    connection: asyncpg.Connection,
    events: Sequence[int],
    sync_rows: Sequence[int],
    positions: DevicePositions,
) -> Held:
    """Mark rows as delivered and move devices' positions, in one transaction.

    A position of an older generation than the device's is passed over, and one that has less than the
    device's own. Returns what was held.
    """
    is_one_statement = not positions and not (events and sync_rows)
    async with nullcontext() if is_one_statement else connection.transaction():
        marked = await connection.fetch(_MARK_EVENTS, events) if events else []
        synced = await connection.fetch(_MARK_SYNC, sync_rows) if sync_rows else []
        if positions:
            await connection.execute("SET LOCAL synchronous_commit = off")
        judged = await connection.fetch(_MOVE, *_columns(positions)) if positions else []
    return Held(
        frozenset(row[0] for row in await _left(connection, _LEFT_EVENTS, events, marked)),
        frozenset(row[0] for row in await _left(connection, _LEFT_SYNC, sync_rows, synced)),
        frozenset(
            positions.keys()
            & {(row[0], row[1]) for row in await _left(connection, _GENERATIONS, _ids(positions), judged)}
        ),
    )


async def _left(
    connection: asyncpg.Connection, statement: str, wanted: Iterable[int], done: Sequence[asyncpg.Record]
) -> Sequence[asyncpg.Record]:
    rest = set(wanted).difference(row[0] for row in done)
    return await connection.fetch(statement, list(rest)) if rest else []


def _ids(positions: DevicePositions) -> set[int]:
    return {device_id for device_id, _ in positions}


def _columns(positions: DevicePositions) -> list[list[object]]:
    rows = [
        (
            device_id,
            generation,
            str(position.seen),
            None if position.reading is None else str(position.reading),
            position.after_id,
            position.taken_at,
            str(position.incarnation),
        )
        for (device_id, generation), position in positions.items()
    ]
    return [list(column) for column in zip(*rows, strict=True)]

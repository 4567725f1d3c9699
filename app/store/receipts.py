"""Write down what has reached its user.

Rows are taken in id order and those that somebody holds are skipped: whoever waits for a row while
holding another can deadlock with the host's cascade, and then the host is the victim. The commit is
asynchronous, since a receipt lost in a crash costs a duplicate and never an event.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import inf

import asyncpg

from app.core.messages import RowKey
from app.core.position import Position
from app.store.outbox_sql import written_at

# Written so that the planner cannot prove it from the predicate of the index on what is pending: it would
# walk that index whole, as long as its statistics say that next to nothing is.
_PENDING = "NOT coalesce(r.{flag}, true)"
# Not a join: these are found by the primary key whatever the planner makes of two lists. The ids are in
# order, so the place of one in the list is found by halving it.
_SAME = f"{written_at('r')} = ($2::bigint[])[width_bucket(r.id, $1::bigint[])]"
# Most receipts are of one table alone: a statement that asks for its own asynchronous commit is then all,
# where a transaction around it would be four round trips.
_MARK = """
WITH mine AS MATERIALIZED (
    SELECT r.id FROM {table} AS r WHERE r.id = ANY($1::bigint[]) AND {pending} AND {same}
    ORDER BY r.id FOR UPDATE SKIP LOCKED
), commit AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
UPDATE {table} AS t SET {flag} = true, {at} = clock_timestamp(), next_attempt_at = NULL
FROM commit, mine WHERE t.id = mine.id
RETURNING t.id"""
_LEFT = "SELECT r.id FROM {table} AS r WHERE r.id = ANY($1::bigint[]) AND {pending} AND {same}"
_EVENTS = {
    "table": "realtime_events",
    "flag": "delivered",
    "at": "delivered_at",
    "pending": _PENDING.format(flag="delivered"),
    "same": _SAME,
}
_SYNC_ROWS = {
    "table": "sync_queue",
    "flag": "synced",
    "at": "synced_at",
    "pending": _PENDING.format(flag="synced"),
    "same": _SAME,
}
_MARK_EVENTS, _LEFT_EVENTS = _MARK.format(**_EVENTS), _LEFT.format(**_EVENTS)
_MARK_SYNC, _LEFT_SYNC = _MARK.format(**_SYNC_ROWS), _LEFT.format(**_SYNC_ROWS)
_GENERATIONS = "SELECT id, user_id, generation FROM users_devices WHERE id = ANY($1::bigint[])"


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

# A generation above the device's own is that of a connection which lives on although the database has lost
# its beginning, as with an asynchronous standby. It may have lost the device too: the id can be another's.
_MOVE = f"""
WITH wanted AS MATERIALIZED (
    SELECT id, user_id, generation, seen::pg_snapshot, reading::pg_snapshot, after_id, taken_at, incarnation
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[],
                $7::timestamptz[], $8::text[])
        AS w(id, user_id, generation, seen, reading, after_id, taken_at, incarnation)
), mine AS MATERIALIZED (
    SELECT d.id FROM users_devices AS d WHERE d.id = ANY($1::bigint[]) ORDER BY d.id FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE users_devices AS d
    SET position_seen = w.seen, position_reading = w.reading, position_after_id = w.after_id,
        position_taken_at = w.taken_at, position_incarnation = w.incarnation,
        last_active = greatest(d.last_active, clock_timestamp())
    FROM mine JOIN wanted AS w ON w.id = mine.id
    WHERE d.id = mine.id AND d.user_id = w.user_id AND d.generation <= w.generation AND ({_FORWARD})
)
SELECT id FROM mine"""

DeviceKey = tuple[int, str, int]
"""A device's id, its user, and the generation of the connection that speaks for it."""

DevicePositions = Mapping[DeviceKey, Position]
"""What devices have now."""


@dataclass(frozen=True, slots=True)
class Held:
    """What somebody held and what must be tried again."""

    events: frozenset[RowKey]
    sync_rows: frozenset[RowKey]
    devices: frozenset[DeviceKey]

    def __len__(self) -> int:
        return len(self.events) + len(self.sync_rows) + len(self.devices)


async def mark(
    connection: asyncpg.Connection,
    events: Sequence[RowKey],
    sync_rows: Sequence[RowKey],
    positions: DevicePositions,
) -> Held:
    """Mark rows as delivered and move devices' positions, in one transaction.

    A row that only has the id of one that is meant is passed over. So is a position of an older generation
    than the device's, and one that has less than the device's own. Returns what was held.
    """
    is_one_statement = not positions and not (events and sync_rows)
    async with nullcontext() if is_one_statement else connection.transaction():
        events_left = await _mark(connection, _MARK_EVENTS, events)
        sync_rows_left = await _mark(connection, _MARK_SYNC, sync_rows)
        if positions:
            await connection.execute("SET LOCAL synchronous_commit = off")
        judged = await connection.fetch(_MOVE, *_columns(positions)) if positions else []
    return Held(
        await _still_pending(connection, _LEFT_EVENTS, events_left),
        await _still_pending(connection, _LEFT_SYNC, sync_rows_left),
        await _not_judged(connection, positions, judged),
    )


async def _mark(connection: asyncpg.Connection, statement: str, rows: Sequence[RowKey]) -> dict[int, int]:
    """Mark rows of one table; return those that were not, for whatever reason, as times by id in order."""
    if not rows:
        return {}
    rest = dict(sorted(rows))  # of two with one id, the first is gone
    for row in await connection.fetch(statement, list(rest), list(rest.values())):
        del rest[row[0]]
    return rest


async def _still_pending(
    connection: asyncpg.Connection, statement: str, rest: dict[int, int]
) -> frozenset[RowKey]:
    held = await connection.fetch(statement, list(rest), list(rest.values())) if rest else []
    return frozenset((row[0], rest[row[0]]) for row in held)


async def _not_judged(
    connection: asyncpg.Connection, positions: DevicePositions, judged: Sequence[asyncpg.Record]
) -> frozenset[DeviceKey]:
    rest = {device_id for device_id, _, _ in positions}.difference(row[0] for row in judged)
    held = await connection.fetch(_GENERATIONS, list(rest)) if rest else []
    least = {(row[0], row[1]): row[2] for row in held}
    return frozenset(key for key in positions if key[2] >= least.get(key[:2], inf))


def _columns(positions: DevicePositions) -> list[list[object]]:
    rows = [
        (
            device_id,
            user_id,
            generation,
            str(position.seen),
            None if position.reading is None else str(position.reading),
            position.after_id,
            position.taken_at,
            str(position.incarnation),
        )
        for (device_id, user_id, generation), position in positions.items()
    ]
    return [list(column) for column in zip(*rows, strict=True)]

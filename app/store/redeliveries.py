"""Rows that a reader had and did not acknowledge: what is kept of them, and when they are given up.

A reader is a device, or the connections of a user without one. A row is kept here while it was refused and
is to be sent again although the reader's position has gone on, or while it was in the way when connections
ended.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from app.core.messages import RowKey
from app.store.outbox_sql import EVENT_MARKS, created_at, written_at
from app.store.reads import Row

LONGEST_DETAIL = 200
SIZED_AT_ONCE = 32
"""Of how many rows of a reader a claim looks at the size."""


@dataclass(frozen=True, slots=True)
class Persistence:
    """How often a row is tried: refused rows after `first_pause` seconds, twice that, and so on.

    It is given up when it was refused `nacks` times, or was in the way `attempts` times and for `at_least`
    seconds.
    """

    first_pause: float = 5.0
    nacks: int = 5
    attempts: int = 8
    at_least: float = 3600.0


@dataclass(frozen=True, slots=True)
class Tried:
    """That a row was tried in vain, how often in which way, and what the client said of it."""

    row: RowKey
    user_id: str
    device_id: int | None
    attempts: int = 0
    nacks: int = 0
    detail: str | None = None


Reader = tuple[str, int | None]
"""A user and the device that reads, None for the connections without one."""

Key = tuple[RowKey, int | None]
"""A row and the device whose it is, None for the connections without one."""

_RECORD = """
INSERT INTO realtime_redeliveries AS r
    (event_id, user_id, device_id, attempts, nacks, detail, next_attempt_at)
SELECT event_id, user_id, device_id, least(attempts, 32767), least(nacks, 32767), detail,
       CASE WHEN nacks > 0 THEN clock_timestamp() + make_interval(secs => $7 * (0.75 + random() / 2)) END
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::int[], $5::int[], $6::text[])
    AS t(event_id, user_id, device_id, attempts, nacks, detail)
ON CONFLICT ON CONSTRAINT realtime_redeliveries_event_device DO UPDATE
SET attempts = least(r.attempts::int + excluded.attempts, 32767),
    nacks = least(r.nacks::int + excluded.nacks, 32767),
    detail = coalesce(excluded.detail, r.detail),
    next_attempt_at = CASE WHEN excluded.nacks = 0 THEN r.next_attempt_at
        ELSE clock_timestamp()
            + make_interval(secs => $7 * power(2, least(r.nacks, 30)) * (0.75 + random() / 2)) END"""

_GIVE_UP = """
WITH dead AS (
    DELETE FROM realtime_redeliveries
    WHERE event_id = ANY($1::bigint[])
      AND (nacks >= $2 OR (attempts >= $3 AND first_at <= clock_timestamp() - make_interval(secs => $4)))
    RETURNING event_id, user_id, device_id, detail, attempts, nacks
), letters AS (
    INSERT INTO realtime_dead_letters (event_id, user_id, device_id, reason, detail, attempts)
    SELECT event_id, user_id, device_id, CASE WHEN nacks >= $2 THEN 'nacked' ELSE 'unacked' END, detail,
           attempts::int + nacks
    FROM dead ON CONFLICT DO NOTHING
), mine AS MATERIALIZED (
    SELECT id FROM realtime_events
    WHERE id IN (SELECT event_id FROM dead WHERE device_id IS NULL)
      AND NOT coalesce(delivered, true) AND settled_as IS NULL
    ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE realtime_events AS e SET settled_as = 'dead', next_attempt_at = NULL FROM mine WHERE e.id = mine.id"""

_PRESENT = f"""
SELECT e.id, {written_at("e")} FROM realtime_events AS e WHERE e.id = ANY($1::bigint[])
UNION ALL
SELECT s.id, {written_at("s")} FROM sync_queue AS s WHERE s.id = ANY($1::bigint[])"""

_SETTLE = """
DELETE FROM realtime_redeliveries AS r
USING unnest($1::bigint[], $2::bigint[]) AS s(event_id, device_id)
WHERE r.event_id = s.event_id AND r.device_id IS NOT DISTINCT FROM s.device_id"""

# As a minimum it is one step into the index; as EXISTS the planner may walk the table.
_ANY_DUE = """
SELECT coalesce((SELECT min(next_attempt_at) FROM realtime_redeliveries) <= clock_timestamp(), false)"""

# The claim keeps other processes, and the next look, away while the row is on its way. Of each reader no more
# than so many bytes, and the first rows of all of them before the second ones of any.
_CLAIM = f"""
WITH readers AS MATERIALIZED (
    SELECT DISTINCT r.user_id, r.device_id FROM realtime_redeliveries AS r
    WHERE r.user_id = ANY($1::text[])
      AND (r.device_id = ANY($2::bigint[]) OR (r.device_id IS NULL AND r.user_id = ANY($6::text[])))
      AND r.next_attempt_at <= clock_timestamp()
), candidates AS MATERIALIZED (
    SELECT of_reader.* FROM readers AS reader
    CROSS JOIN LATERAL (
        SELECT sized.id, row_number() OVER (ORDER BY sized.id) AS place,
               sum(sized.size) OVER (ORDER BY sized.id) - sized.size AS bytes_before
        FROM (
            SELECT first.id, octet_length(coalesce(e.payload, s.payload)::text) AS size
            FROM (
                SELECT r.id, r.event_id FROM realtime_redeliveries AS r
                WHERE r.user_id = reader.user_id AND r.device_id IS NOT DISTINCT FROM reader.device_id
                  AND r.next_attempt_at <= clock_timestamp()
                ORDER BY r.id LIMIT least($3, {SIZED_AT_ONCE})
            ) AS first
            LEFT JOIN realtime_events AS e ON e.id = first.event_id
            LEFT JOIN sync_queue AS s ON s.id = first.event_id
        ) AS sized
    ) AS of_reader
), mine AS MATERIALIZED (
    SELECT r.id FROM realtime_redeliveries AS r
    WHERE r.id = ANY(ARRAY(
              SELECT c.id FROM candidates AS c WHERE coalesce(c.bytes_before, 0) < $5
              ORDER BY c.place, c.id LIMIT $3))
      AND r.next_attempt_at <= clock_timestamp() AND NOT realtime_user_erased(r.user_id)
    ORDER BY r.id FOR UPDATE SKIP LOCKED
), due AS (
    UPDATE realtime_redeliveries AS r
    SET next_attempt_at = clock_timestamp() + make_interval(secs => $4)
    FROM mine WHERE r.id = mine.id
    RETURNING r.event_id, r.device_id AS reader
)
SELECT 'e' AS kind, r.id, r.xid, r.user_id, r.event_type AS label, r.payload::text AS data,
       {created_at("r")}, {EVENT_MARKS} AS ref, due.reader
FROM due JOIN realtime_events AS r ON r.id = due.event_id AND (due.reader IS NOT NULL OR NOT r.delivered)
UNION ALL
SELECT 's', s.id, s.xid, s.user_id, s.action_type, s.payload::text,
       {created_at("s")}, s.device_id, due.reader
FROM due JOIN sync_queue AS s ON s.id = due.event_id
ORDER BY id"""

# As a claim finds them, but nothing changes: whoever asks over HTTP may not get the answer.
_DUE = f"""
WITH due AS MATERIALIZED (
    SELECT r.event_id FROM realtime_redeliveries AS r
    WHERE r.user_id = $1 AND r.device_id IS NOT DISTINCT FROM $2 AND r.next_attempt_at <= clock_timestamp()
    ORDER BY r.event_id LIMIT $3
)
SELECT 'e' AS kind, r.id, r.xid, r.user_id, r.event_type AS label, r.payload::text AS data,
       {created_at("r")}, {EVENT_MARKS} AS ref
FROM due JOIN realtime_events AS r ON r.id = due.event_id AND ($2::bigint IS NOT NULL OR NOT r.delivered)
UNION ALL
SELECT 's', s.id, s.xid, s.user_id, s.action_type, s.payload::text,
       {created_at("s")}, s.device_id
FROM due JOIN sync_queue AS s ON s.id = due.event_id
ORDER BY id"""

_STATE = """
SELECT r.event_id, r.next_attempt_at IS NOT NULL AS left_out
FROM realtime_redeliveries AS r
WHERE r.event_id = ANY($1::bigint[]) AND r.device_id IS NOT DISTINCT FROM $2
UNION ALL
SELECT l.event_id, true FROM realtime_dead_letters AS l
WHERE l.event_id = ANY($1::bigint[]) AND l.device_id IS NOT DISTINCT FROM $2 AND l.reason <> 'expired'"""


async def present(connection: asyncpg.Connection, ids: Iterable[int]) -> dict[int, RowKey]:
    """Tell which rows have these ids; a crash may have handed out again what another one had."""
    return {row[0]: (row[0], row[1]) for row in await connection.fetch(_PRESENT, list(ids))}


async def record(connection: asyncpg.Connection, tried: Sequence[Tried], persistence: Persistence) -> None:
    """Write down what was tried in vain, each row and reader at most once, and give up what was too often."""
    rows = sorted(tried, key=lambda one: (one.row, one.device_id or 0))
    events = [one.row[0] for one in rows]
    await connection.execute(
        _RECORD,
        events,
        [one.user_id for one in rows],
        [one.device_id for one in rows],
        [one.attempts for one in rows],
        [one.nacks for one in rows],
        [one.detail for one in rows],
        persistence.first_pause,
    )
    await connection.execute(_GIVE_UP, events, persistence.nacks, persistence.attempts, persistence.at_least)


async def settle(connection: asyncpg.Connection, keys: Sequence[Key]) -> None:
    """Forget rows that their readers have processed."""
    await connection.execute(_SETTLE, [row[0] for row, _ in keys], [device_id for _, device_id in keys])


async def claim_due(
    connection: asyncpg.Connection,
    readers: Sequence[Reader],
    *,
    limit: int,
    claimed_for: float,
    bytes_each: int = 256 << 10,
) -> list[Row]:
    """Take rows that are due to these readers, in id order, for so many seconds.

    Of each reader the oldest, SIZED_AT_ONCE at most, until they exceed `bytes_each`. Each has one column more
    than a row of a read: `reader`, the device that it is for, or null.
    """
    return await connection.fetch(
        _CLAIM,
        list({user_id for user_id, _ in readers}),
        [device_id for _, device_id in readers if device_id is not None],
        limit,
        claimed_for,
        bytes_each,
        [user_id for user_id, device_id in readers if device_id is None],
    )


async def due(
    connection: asyncpg.Connection, user_id: str, device_id: int | None, *, limit: int
) -> list[Row]:
    """Look at what is due to one reader, in id order, and leave it as it is."""
    return await connection.fetch(_DUE, user_id, device_id, limit)


async def any_due(connection: asyncpg.Connection) -> bool:
    """Whether anything is due to anybody."""
    due: bool = await connection.fetchval(_ANY_DUE)
    return due


@dataclass(frozen=True, slots=True)
class Sifted:
    """Rows of a read for one reader; `again` are the ids of those that it was sent before."""

    rows: list[Row]
    again: frozenset[int]


async def sift(connection: asyncpg.Connection, rows: list[Row], device_id: int | None) -> Sifted:
    """Leave out what is sent again when its time comes, and what was given up, for this reader."""
    found = await connection.fetch(_STATE, [row[1] for row in rows], device_id)
    state: dict[int, bool] = {row["event_id"]: row["left_out"] for row in found}
    return Sifted(
        [row for row in rows if not state.get(row[1], False)],
        frozenset(event_id for event_id, left_out in state.items() if not left_out),
    )

"""Sync over HTTP: which rows an ack names, and what a device uploads."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from app.core.messages import RowKey
from app.store.outbox_sql import written_at

# As in `receipts`: by the primary key, whatever the statistics say of the index on what is pending.
_NAMED = f"""
SELECT 'e' AS kind, r.id, {written_at("r")} FROM realtime_events AS r
WHERE id = ANY($1::bigint[]) AND user_id = $2 AND NOT coalesce(delivered, true) AND settled_as IS NULL
UNION ALL
SELECT 's', r.id, {written_at("r")} FROM sync_queue AS r
WHERE id = ANY($1::bigint[]) AND user_id = $2 AND NOT coalesce(synced, true)
  AND $3 AND device_id IS DISTINCT FROM $4"""

# Ids in the order of the actions, which is the order of delivery; but inserted in the order of their keys,
# so that of two uploads one waits for the other and never both.
_UPLOAD = """
WITH wanted AS MATERIALIZED (
    SELECT nextval('realtime_id_seq') AS id, a.key, a.action_type, a.payload
    FROM (
        SELECT * FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY
            AS u(key, action_type, payload, number)
        WHERE NOT EXISTS (SELECT FROM sync_queue AS s WHERE s.user_id = $1 AND s.key = u.key)
        ORDER BY number
    ) AS a
)
INSERT INTO sync_queue (id, user_id, device_id, key, action_type, payload)
SELECT id, $1, $2, key, action_type, payload::jsonb FROM wanted ORDER BY key
ON CONFLICT (user_id, key) WHERE key IS NOT NULL DO NOTHING
RETURNING key"""

# What was refused is settled for this reader only; a record that somebody holds is left to the receipts.
_SETTLE = f"""
WITH wanted AS MATERIALIZED (
    SELECT id, event_id FROM realtime_redeliveries
    WHERE event_id = ANY($1::bigint[]) AND user_id = $2 AND device_id IS NOT DISTINCT FROM $3
), mine AS MATERIALIZED (
    SELECT id FROM realtime_redeliveries WHERE id IN (SELECT id FROM wanted)
    ORDER BY id FOR UPDATE SKIP LOCKED
), settled AS (
    DELETE FROM realtime_redeliveries AS r USING mine WHERE r.id = mine.id RETURNING r.event_id
)
SELECT w.event_id,
       coalesce((SELECT {written_at("e")} FROM realtime_events AS e WHERE e.id = w.event_id),
                (SELECT {written_at("s")} FROM sync_queue AS s WHERE s.id = w.event_id), 0),
       w.event_id IN (SELECT event_id FROM settled) AS done
FROM wanted AS w"""

PATIENCE = "500ms"
"""How long an upload waits for a lock; shorter than `deadlock_timeout`, so that no host is its victim."""


class UserGone(Exception):  # noqa: N818 - what the table says, not a mistake
    """The user was deleted meanwhile."""


class Held(Exception):  # noqa: N818 - as above
    """Somebody holds what the upload needs; it can be tried again."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a device did; `payload` is JSON text."""

    key: str
    action_type: str
    payload: str


async def named_undelivered(
    connection: asyncpg.Connection,
    ids: Sequence[int],
    user_id: str,
    *,
    takes_sync: bool,
    device_id: int | None,
) -> tuple[tuple[RowKey, ...], tuple[RowKey, ...]]:
    """List those events and sync rows among `ids` that are a user's, for this device and undelivered."""
    rows = await connection.fetch(_NAMED, ids, user_id, takes_sync, device_id)
    events = tuple((row[1], row[2]) for row in rows if row[0] == "e")
    return events, tuple((row[1], row[2]) for row in rows if row[0] == "s")


async def settle_refused(
    connection: asyncpg.Connection, ids: Sequence[int], user_id: str, device_id: int | None
) -> tuple[tuple[RowKey, ...], tuple[RowKey, ...]]:
    """Forget that a reader refused some of these rows; returns which those were, and which somebody holds."""
    rows = await connection.fetch(_SETTLE, ids, user_id, device_id)
    settled = tuple((row[0], row[1]) for row in rows if row["done"])
    return settled, tuple((row[0], row[1]) for row in rows if not row["done"])


async def upload(
    connection: asyncpg.Connection, user_id: str, device_id: int, actions: Sequence[Action]
) -> set[str]:
    """Queue those actions whose keys the user has not used; returns their keys.

    Keys must differ. Raises UserGone, Held, and asyncpg.DataError for JSON that jsonb cannot hold.
    """
    columns = (
        [one.key for one in actions],
        [one.action_type for one in actions],
        [one.payload for one in actions],
    )
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE}'")
            rows = await connection.fetch(_UPLOAD, user_id, device_id, *columns)
    except asyncpg.ForeignKeyViolationError as error:
        raise UserGone(user_id) from error
    except asyncpg.LockNotAvailableError as error:
        raise Held("a row that the upload needs is held") from error
    return {row["key"] for row in rows}

"""Rows that should have arrived by now, and the claim on sending them again.

Candidates are found through the index on what is pending, a bounded number per user; a claim takes only
rows that are still pending and due, so that of two processes one gets a row. It may commit
asynchronously: a claim lost in a crash costs one attempt too many.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from app.store.outbox_sql import EVENT_MARKS, created_at, written_at
from app.store.reads import Row

LOOKED_AT = 1000
"""Of how many pending rows of a user, oldest first, the due ones are chosen."""
PER_USER = 100


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds until a row is stale, which double with each attempt up to `at_most`."""

    stale_after: float = 30.0
    at_most: float = 3600.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that the table calls stale.

    `written_at` is its time in microseconds since 1970; `origin` is the device that uploaded it; `size` is
    bytes.
    """

    id: int
    xid: int
    written_at: int
    user_id: str
    origin: int | None
    size: int


@dataclass(frozen=True, slots=True)
class StaleRows:
    """One table's stale rows; `mobile_only` says that only mobile devices take them."""

    noun: str
    mobile_only: bool
    find: str
    take: str

    async def candidates(
        self, connection: asyncpg.Connection, users: Sequence[str], patience: Patience
    ) -> list[Candidate]:
        """Find stale rows of these users, oldest first for each of them."""
        rows = await connection.fetch(self.find, users, patience.stale_after, LOOKED_AT, PER_USER)
        return [Candidate(*row) for row in rows]

    async def claim(
        self, connection: asyncpg.Connection, ids: Sequence[int], patience: Patience
    ) -> list[Row]:
        """Count an attempt for each row that is still to be sent, and return those in id order.

        Rows that somebody holds, or that another process claimed, or of deleted users, are left out.
        """
        async with connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = off")
            return await connection.fetch(self.take, ids, patience.stale_after, patience.at_most)


# What a device could not process is sent again in its own time, or not at all until somebody redrives it.
# Looked up for each row, as in `retention`.
_NOBODYS = """
      NOT EXISTS (SELECT FROM realtime_redeliveries AS q
                  WHERE q.event_id = {row}.id AND q.next_attempt_at IS NOT NULL OFFSET 0)
      AND NOT EXISTS (SELECT FROM realtime_dead_letters AS l WHERE l.event_id = {row}.id OFFSET 0)"""


def _find(table: str, pending: str, origin: str, since: str) -> str:
    return f"""
SELECT due.id, due.xid, {written_at("due")}, u.user_id, due.origin, due.size
FROM unnest($1::text[]) AS u(user_id)
CROSS JOIN LATERAL (
    SELECT p.id, p.xid, p.created_at, p.origin, octet_length(p.payload::text) AS size
    FROM (
        SELECT r.id, r.xid, r.created_at, {origin} AS origin, r.payload, {since} AS since, r.next_attempt_at
        FROM {table} AS r WHERE r.user_id = u.user_id AND {pending} ORDER BY r.id LIMIT $3
    ) AS p
    WHERE p.since < statement_timestamp() - make_interval(secs => $2)
      AND (p.next_attempt_at IS NULL OR p.next_attempt_at <= statement_timestamp())
      AND {_NOBODYS.format(row="p")}
    LIMIT $4
) AS due"""


def _take(table: str, pending: str, kind: str, label: str, origin: str) -> str:
    return f"""
WITH mine AS MATERIALIZED (
    SELECT r.id FROM {table} AS r
    WHERE r.id = ANY($1::bigint[]) AND {pending}
      AND (r.next_attempt_at IS NULL OR r.next_attempt_at <= statement_timestamp())
      AND NOT realtime_user_erased(r.user_id) AND {_NOBODYS.format(row="r")}
    ORDER BY r.id FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE {table} AS r
    SET attempts = least(r.attempts + 1, 32767),
        -- A tenth of it by chance: rows that went stale together need not stay together.
        next_attempt_at = statement_timestamp() + (0.95 + 0.1 * random())
            * make_interval(secs => least($2::float8 * power(2, least(r.attempts, 30)), $3::float8))
    FROM mine WHERE r.id = mine.id
    RETURNING '{kind}' AS kind, r.id, r.xid, r.user_id, r.{label}, r.payload::text,
              {created_at("r")}, {origin} AS ref
)
SELECT * FROM claimed ORDER BY id"""


_PENDING_EVENT = "NOT r.delivered AND r.settled_as IS NULL"
_PENDING_SYNC = "NOT r.synced"

EVENTS = StaleRows(
    "event",
    mobile_only=False,
    # The tail sends what was redriven, as it sends what is new; here it is the second attempt.
    find=_find(
        "realtime_events", _PENDING_EVENT, "NULL::bigint", since="coalesce(r.redriven_at, r.created_at)"
    ),
    take=_take(
        "realtime_events",
        _PENDING_EVENT,
        "e",
        "event_type",
        EVENT_MARKS,
    ),
)
SYNC_ROWS = StaleRows(
    "sync row",
    mobile_only=True,
    find=_find("sync_queue", _PENDING_SYNC, "r.device_id", since="r.created_at"),
    take=_take("sync_queue", _PENDING_SYNC, "s", "action_type", "r.device_id"),
)

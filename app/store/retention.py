"""What goes when it is old enough, in batches that never wait and never take long.

A batch examines rows in id order from where the one before ended, a bounded number of them, and ends the
walk where none of them is old: ids grow with time. So a walk is linear in the old rows, whatever they
are; looking for the next thousand from the start each time would step over the dead rows of all batches
before. Rows that somebody holds are passed over until the next walk.

Sync rows that no device came for within their time are removed. There is a dead letter for them that
tells so and cannot be redriven; none when the row was uploaded by the user's only mobile device, since
nobody was waiting. Expired events stay, settled, for as long as their dead letter is kept,
and so does what a device is still to be sent again: when the record of that goes, a letter takes its place.

Whatever goes moves `purged_through` in the same transaction: to when it was delivered, or, where it
never was, to when it was written. A reader from before that is told that its history has a gap.
"""

from dataclasses import dataclass

import asyncpg

from app.store import turn
from app.store.turn import Turn

EXAMINED = 5000
CHANGED = 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows changed, and the id after which the next batch begins; None when no old row follows."""

    changed: int
    after_id: int | None


@dataclass(frozen=True, slots=True)
class Sweep:
    """A walk through the old rows of one table, one statement per batch."""

    turn: Turn
    statement: str

    async def batch(
        self,
        connection: asyncpg.Connection,
        after_id: int,
        older_than: float,
        *,
        examined: int = EXAMINED,
        changed: int = CHANGED,
    ) -> Batch | None:
        """Deal with rows older than so many seconds; None when another process is at it.

        At most `examined` rows are looked at and `changed` are changed.
        """
        async with connection.transaction():
            if not await turn.take(connection, self.turn):
                return None
            row = await connection.fetchrow(self.statement, after_id, examined, changed, older_than)
        if row is None:
            return Batch(0, None)
        return Batch(row["changed"], row["next_after"])


_BEFORE = "statement_timestamp() - make_interval(secs => $4)"

_PURGED = """
INSERT INTO realtime_retention AS kept (purged_through)
SELECT max(at) FROM changed HAVING count(*) > 0
ON CONFLICT (single) DO UPDATE SET purged_through = greatest(kept.purged_through, excluded.purged_through)"""


def _sweep(table: str, *, old: str, wanted: str, change: str, then: dict[str, str]) -> str:
    """`change` is the verb on the rows `mine`, which returns them; `then` names what follows from it."""
    follows = "".join(f", {name} AS ({statement})" for name, statement in then.items())
    return f"""
WITH examined AS MATERIALIZED (
    SELECT r.id, {old} AS old, {wanted} AS wanted
    FROM {table} AS r WHERE r.id > $1 ORDER BY r.id LIMIT $2
), chosen AS MATERIALIZED (
    SELECT id FROM examined WHERE wanted ORDER BY id LIMIT $3
), mine AS MATERIALIZED (
    SELECT r.id FROM {table} AS r
    WHERE r.id = ANY(ARRAY(SELECT id FROM chosen)) AND {wanted}
    ORDER BY r.id FOR UPDATE SKIP LOCKED
), changed AS ({change}){follows}
SELECT (SELECT count(*) FROM changed) AS changed,
       CASE WHEN (SELECT count(*) FROM chosen) = $3 THEN (SELECT max(id) FROM chosen)
            WHEN count(*) = $2 AND bool_or(old) THEN max(id) END AS next_after
FROM examined"""


def _delete(table: str, returning: str) -> str:
    return f"DELETE FROM {table} AS r USING mine WHERE r.id = mine.id RETURNING {returning}"


# With OFFSET, here and below, it is looked up for each row; without, the planner may read all letters first.
_NOBODY_NEEDS_IT = """
    NOT EXISTS (SELECT FROM realtime_dead_letters AS l WHERE l.event_id = r.id OFFSET 0)
    AND NOT EXISTS (SELECT FROM realtime_redeliveries AS q
                    WHERE q.event_id = r.id AND q.next_attempt_at IS NOT NULL OFFSET 0)"""
_LETTERS = """
INSERT INTO realtime_dead_letters (event_id, user_id, reason, attempts)
SELECT c.id, c.user_id, 'expired', c.attempts FROM changed AS c {where} ON CONFLICT DO NOTHING"""
_SOMEBODY_WAITED = """
WHERE c.device_id IS NULL OR EXISTS (
    SELECT FROM users_devices AS d
    WHERE d.user_id = c.user_id AND d.platform IN ('ios', 'android') AND d.id <> c.device_id
    OFFSET 0)"""

EXPIRE_EVENTS = Sweep(
    Turn.EXPIRE,
    _sweep(
        "realtime_events",
        old=f"r.created_at < {_BEFORE}",
        # What was redriven has its time again; it is old all the same, since the walk goes by id.
        wanted=f"""(NOT r.delivered AND r.settled_as IS NULL AND r.created_at < {_BEFORE}
                    AND coalesce(r.redriven_at, r.created_at) < {_BEFORE})""",
        change="""
            UPDATE realtime_events AS r SET settled_as = 'expired', next_attempt_at = NULL
            FROM mine WHERE r.id = mine.id RETURNING r.id, r.user_id, r.attempts""",
        then={"letters": _LETTERS.format(where="")},
    ),
)
EXPIRE_SYNC_ROWS = Sweep(
    Turn.EXPIRE,
    _sweep(
        "sync_queue",
        old=f"r.created_at < {_BEFORE}",
        wanted=f"(NOT r.synced AND r.created_at < {_BEFORE})",
        change=_delete("sync_queue", "r.id, r.user_id, r.attempts, r.device_id, r.created_at AS at"),
        then={"letters": _LETTERS.format(where=_SOMEBODY_WAITED), "purged": _PURGED},
    ),
)
PURGE_EVENTS = Sweep(
    Turn.PURGE,
    _sweep(
        "realtime_events",
        old=f"r.created_at < {_BEFORE}",
        # The predecessor kept no time of delivery.
        wanted=f"""(r.created_at < {_BEFORE} AND (r.delivered OR r.settled_as IS NOT NULL)
                    AND coalesce(r.delivered_at, r.created_at) < {_BEFORE} AND {_NOBODY_NEEDS_IT})""",
        # Whoever was there between its writing and its redriving has not seen it either.
        change=_delete("realtime_events", "coalesce(r.delivered_at, r.redriven_at, r.created_at) AS at"),
        then={"purged": _PURGED},
    ),
)
PURGE_SYNC_ROWS = Sweep(
    Turn.PURGE,
    _sweep(
        "sync_queue",
        old=f"r.created_at < {_BEFORE}",
        wanted=f"""(r.synced AND coalesce(r.synced_at, r.created_at) < {_BEFORE}
                    AND {_NOBODY_NEEDS_IT})""",
        change=_delete("sync_queue", "coalesce(r.synced_at, r.created_at) AS at"),
        then={"purged": _PURGED},
    ),
)
PURGE_DEAD_LETTERS = Sweep(
    Turn.PURGE,
    _sweep(
        "realtime_dead_letters",
        old=f"r.dead_at < {_BEFORE}",
        wanted=f"(r.dead_at < {_BEFORE})",
        change=_delete("realtime_dead_letters", "r.id"),
        then={},
    ),
)
PURGE_REDELIVERIES = Sweep(
    Turn.PURGE,
    _sweep(
        "realtime_redeliveries",
        old=f"r.first_at < {_BEFORE}",
        wanted=f"(r.first_at < {_BEFORE})",
        change=_delete(
            "realtime_redeliveries",
            "r.event_id, r.user_id, r.device_id, r.attempts::int + r.nacks AS attempts, r.detail,"
            " r.next_attempt_at",
        ),
        then={
            "letters": """
                INSERT INTO realtime_dead_letters (event_id, user_id, device_id, reason, detail, attempts)
                SELECT c.event_id, c.user_id, c.device_id, 'expired', c.detail, c.attempts FROM changed AS c
                WHERE c.device_id IS NOT NULL AND c.next_attempt_at IS NOT NULL
                  AND realtime_is_redrivable(c.event_id, c.device_id)
                ON CONFLICT DO NOTHING"""
        },
    ),
)
PURGE_COMMANDS = Sweep(
    Turn.PURGE,
    _sweep(
        "realtime_commands",
        old=f"r.created_at < {_BEFORE}",
        # While a deleted user has rows, or could, the command is what keeps them from being delivered. A
        # user's last disconnection stays for good: nobody knows how long an older token would be taken.
        wanted=f"""(r.created_at < {_BEFORE} AND (r.kind NOT IN ('user_deleted', 'disconnect')
                    OR r.kind = 'disconnect' AND EXISTS (
                        SELECT FROM realtime_commands AS n WHERE n.user_id = r.user_id AND n.id > r.id
                        AND coalesce((n.detail ->> 'revoked_before')::float8,
                                     extract(epoch FROM n.created_at))
                            >= (r.detail ->> 'revoked_before')::float8
                        AND n.kind IN ('user_deleted', 'disconnect') OFFSET 0)
                    OR r.kind = 'user_deleted' AND (r.detail -> 'erased') IS NOT NULL
                    AND CASE WHEN EXISTS (SELECT FROM realtime_events AS e
                                          WHERE e.user_id = r.user_id OFFSET 0)
                             THEN NOT realtime_user_erased(r.user_id) ELSE true END))""",
        change=_delete("realtime_commands", "r.id"),
        then={},
    ),
)


async def refresh_devices(connection: asyncpg.Connection, ids: list[int], older_than: float) -> int:
    """Note that devices are here, where that was last noted more than so many seconds ago."""
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = off")
        refreshed = await connection.fetch(
            """
            WITH mine AS MATERIALIZED (
                SELECT id FROM users_devices WHERE id = ANY($1::bigint[])
                    AND last_active < statement_timestamp() - make_interval(secs => $2)
                ORDER BY id FOR UPDATE SKIP LOCKED)
            UPDATE users_devices AS d SET last_active = statement_timestamp()
            FROM mine WHERE d.id = mine.id RETURNING d.id
            """,
            ids,
            older_than,
        )
    return len(refreshed)


async def forget_devices(connection: asyncpg.Connection, not_seen_for: float, batch: int) -> int | None:
    """Remove up to `batch` devices not seen for so many seconds; None when another process is at it."""
    async with connection.transaction():
        if not await turn.take(connection, Turn.FORGET):
            return None
        # Each leaves a command, which the sweep finds; a NOTIFY per device would hold up the host's commits.
        await connection.execute("SET LOCAL realtime.bells = 'off'")
        forgotten = await connection.fetch(
            """
            WITH mine AS MATERIALIZED (
                SELECT id FROM users_devices
                WHERE last_active < statement_timestamp() - make_interval(secs => $1)
                ORDER BY last_active LIMIT $2 FOR UPDATE SKIP LOCKED)
            DELETE FROM users_devices AS d USING mine WHERE d.id = mine.id RETURNING d.id
            """,
            not_seen_for,
            batch,
        )
    return len(forgotten)

"""The rows that are left of deleted users.

Nobody is delivered them any more since the deletion was committed; to remove them only frees the space and
lets no trace remain. A deletion's command is marked when nothing can be left, so that a walk visits only
those of late; the command itself stays, since it is what keeps rows from being delivered.
"""

from dataclasses import dataclass

import asyncpg

from app.store import turn
from app.store.turn import Turn


@dataclass(frozen=True, slots=True)
class Erased:
    """Rows removed, and the command after which the next batch begins; None when no other follows."""

    removed: int
    after_id: int | None


async def erase(connection: asyncpg.Connection, after_id: int, batch: int) -> Erased | None:
    """Remove up to `batch` rows of deleted users, from a bounded number of commands above `after_id`.

    None when another process is at it.
    """
    async with connection.transaction():
        if not await turn.take(connection, Turn.ERASE):
            return None
        removed, next_after = await connection.fetchval("SELECT realtime_erase($1, $2)", batch, after_id)
    return Erased(removed, next_after)


_REOPEN = """
WITH examined AS MATERIALIZED (
    SELECT c.id, c.user_id, c.detail
    FROM realtime_commands AS c
    WHERE c.kind = 'user_deleted' AND c.user_id > $1 ORDER BY c.user_id LIMIT $2
), reopened AS (
    UPDATE realtime_commands AS c SET detail = NULL FROM examined AS x
    WHERE c.id = x.id AND (x.detail -> 'erased') IS NOT NULL
      AND CASE WHEN EXISTS (SELECT FROM realtime_events AS e WHERE e.user_id = x.user_id OFFSET 0)
                 OR EXISTS (SELECT FROM realtime_dead_letters AS l WHERE l.user_id = x.user_id OFFSET 0)
                 OR EXISTS (SELECT FROM realtime_redeliveries AS r WHERE r.user_id = x.user_id OFFSET 0)
               THEN realtime_user_erased(x.user_id) END
)
SELECT CASE WHEN count(*) = $2 THEN max(x.user_id) END FROM examined AS x"""


async def reopen(connection: asyncpg.Connection, after_user: str, examined: int) -> str | None:
    """Take back the marks of users of whom something was written since, without their having returned.

    Looks at `examined` deletions of users above `after_user`; returns the user after whom to go on, None when
    no other follows.
    """
    async with connection.transaction():
        if not await turn.take(connection, Turn.ERASE):
            return after_user
        next_after: str | None = await connection.fetchval(_REOPEN, after_user, examined)
    return next_after

"""Withhold events of rooms that their users have left, between the write and the sending.

The service has no right to look into the host's rooms; `realtime_may_see` looks for it. What is withheld and
undelivered is settled then and there: nobody is owed it any more.
"""

import asyncpg

from app.store.reads import Row

_MAY_SEE = "SELECT realtime_may_see($1)"
_SETTLE = """
WITH mine AS MATERIALIZED (
    SELECT id FROM realtime_events
    WHERE id = ANY($1::bigint[]) AND NOT coalesce(delivered, true) AND settled_as IS NULL
    ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE realtime_events AS e SET settled_as = 'left_room', next_attempt_at = NULL
FROM mine WHERE e.id = mine.id"""


async def admitted(connection: asyncpg.Connection, rows: list[Row]) -> list[Row]:
    """Leave out, and settle, what must not be sent."""
    asked = {row[1] for row in rows if row[0] == "e" and row[7] is not None}
    if not asked:
        return rows
    withheld = asked.difference([row[0] for row in await connection.fetch(_MAY_SEE, asked)])
    if not withheld:
        return rows
    await connection.execute(_SETTLE, withheld)
    return [row for row in rows if row[1] not in withheld]

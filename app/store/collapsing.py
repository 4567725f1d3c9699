"""Find events that a newer one of their collapse key makes superfluous to a reader that has neither."""

import asyncpg

from app.store.reads import COLLAPSIBLE, Owner, Row, Unseen, marked

# Whatever is newer and unseen will come, in this read, in the next, or live. With OFFSET it is looked up for
# each row; without, the planner may read all events first.
_SUPERSEDED = """
SELECT r.id FROM realtime_events AS r
WHERE r.id = ANY($1::bigint[]) AND EXISTS (
    SELECT FROM realtime_events AS n
    WHERE n.user_id = r.user_id AND n.collapse_key = r.collapse_key AND n.id > r.id
      AND n.settled_as IS DISTINCT FROM 'left_room'
      AND (n.xid >= $2 OR n.xid = ANY($3::xid8[]) OR n.created_at >= $4
           OR ($5 AND NOT n.delivered AND n.settled_as IS NULL))
    OFFSET 0)"""


async def superseded(
    connection: asyncpg.Connection, rows: list[Row], wanted: Unseen, owner: Owner
) -> frozenset[int]:
    """Tell which of the rows of this read the reader need not get."""
    asked = marked(rows, COLLAPSIBLE)
    if not asked:
        return frozenset()
    seen = wanted.seen
    found = await connection.fetch(
        _SUPERSEDED, asked, seen.xmax, list(seen.in_progress), wanted.since, owner.with_undelivered
    )
    return frozenset(row[0] for row in found)

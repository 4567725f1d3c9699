"""Settle undelivered events that nobody is owed any more."""

from collections.abc import Collection
from enum import StrEnum

import asyncpg


class Settled(StrEnum):
    """Why an event is owed to nobody although it never arrived (`realtime_events.settled_as`)."""

    LEFT_ROOM = "left_room"
    COLLAPSED = "collapsed"


_SETTLE = """
WITH mine AS MATERIALIZED (
    SELECT id FROM realtime_events
    WHERE id = ANY($1::bigint[]) AND NOT coalesce(delivered, true) AND settled_as IS NULL
    ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE realtime_events AS e SET settled_as = $2, next_attempt_at = NULL FROM mine WHERE e.id = mine.id"""


async def settle(connection: asyncpg.Connection, ids: Collection[int], reason: Settled) -> None:
    """Settle those of these events that are undelivered; what somebody holds is left as it is."""
    if ids:
        await connection.execute(_SETTLE, ids, reason)

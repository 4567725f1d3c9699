"""Withhold events of rooms that their users have left, between the write and the sending.

The service has no right to look into the host's rooms; `realtime_may_see` looks for it.
"""

import asyncpg

from app.store.reads import OF_ROOM, Row, marked
from app.store.settling import Settled, settle

_MAY_SEE = "SELECT realtime_may_see($1)"


async def withheld(connection: asyncpg.Connection, rows: list[Row]) -> frozenset[int]:
    """Tell which of these rows must not be sent."""
    asked = marked(rows, OF_ROOM)
    if not asked:
        return frozenset()
    return asked.difference([row[0] for row in await connection.fetch(_MAY_SEE, asked)])


async def admitted(connection: asyncpg.Connection, rows: list[Row]) -> list[Row]:
    """Leave out, and settle, what must not be sent."""
    barred = await withheld(connection, rows)
    if not barred:
        return rows
    await settle(connection, barred, Settled.LEFT_ROOM)
    return [row for row in rows if row[1] not in barred]

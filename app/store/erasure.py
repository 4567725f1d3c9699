"""Remove what is left of deleted users."""

import asyncpg

from app.store import turn
from app.store.turn import Turn


async def erase(connection: asyncpg.Connection, batch: int) -> int | None:
    """Remove up to `batch` rows of deleted users; returns how many went, 0 when none is left.

    None when another process is at it. Nobody is delivered these rows any more since the deletion was
    committed; this only frees the space and lets no trace remain.
    """
    async with connection.transaction():
        if not await turn.take(connection, Turn.ERASE):
            return None
        removed: int = await connection.fetchval("SELECT realtime_erase($1)", batch)
    return removed

"""Since when a user's older tokens are void."""

import asyncpg

from app.store.outbox_sql import revoked_before

_REVOKED_BEFORE = f"SELECT {revoked_before('$1')}"


async def last(connection: asyncpg.Connection, user_id: str) -> float | None:
    """When a user was last disconnected or deleted, in unix seconds; None when that is not remembered."""
    moment: float | None = await connection.fetchval(_REVOKED_BEFORE, user_id)
    return moment

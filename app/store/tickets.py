"""Tickets: what stands for a token where none can be sent. Only their hashes are kept."""

from dataclasses import dataclass

import asyncpg


@dataclass(frozen=True, slots=True)
class TicketRow:
    """For whom a ticket stands, and for which token; times are unix seconds."""

    user_id: str
    issued_at: float | None
    expires_at: float


async def add(
    connection: asyncpg.Connection, digest: bytes, ticket: TicketRow, *, good_for: float, single_use: bool
) -> None:
    """Keep a ticket for so many seconds."""
    await connection.execute(
        """
        INSERT INTO realtime_tickets (hash, user_id, issued_at, expires_at, single_use, good_until)
        VALUES ($1, $2, $3, $4, $5, statement_timestamp() + make_interval(secs => $6))
        """,
        digest,
        ticket.user_id,
        ticket.issued_at,
        ticket.expires_at,
        single_use,
        good_for,
    )


async def use_up(connection: asyncpg.Connection, digest: bytes) -> TicketRow | None:
    """Take a ticket of a single use away; None when it is not there, used, or too old."""
    row = await connection.fetchrow(
        """
        DELETE FROM realtime_tickets WHERE hash = $1 AND single_use AND good_until > statement_timestamp()
        RETURNING user_id, issued_at, expires_at
        """,
        digest,
    )
    return None if row is None else TicketRow(*row)


async def look_at(connection: asyncpg.Connection, digest: bytes) -> TicketRow | None:
    """Find a ticket of many uses; None when it is not there or too old."""
    row = await connection.fetchrow(
        """
        SELECT user_id, issued_at, expires_at FROM realtime_tickets
        WHERE hash = $1 AND NOT single_use AND good_until > statement_timestamp()
        """,
        digest,
    )
    return None if row is None else TicketRow(*row)


async def purge(connection: asyncpg.Connection, batch: int) -> int:
    """Remove up to `batch` tickets that are too old; returns how many that were."""
    purged = await connection.fetch(
        """
        WITH mine AS MATERIALIZED (
            SELECT hash FROM realtime_tickets WHERE good_until < statement_timestamp()
            ORDER BY good_until LIMIT $1 FOR UPDATE SKIP LOCKED)
        DELETE FROM realtime_tickets AS t USING mine WHERE t.hash = mine.hash RETURNING 1
        """,
        batch,
    )
    return len(purged)

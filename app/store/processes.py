"""The processes that serve this database, as each says of itself."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg


@dataclass(frozen=True, slots=True)
class Process:
    """One process; `id` is new with each start."""

    id: UUID
    host: str
    pid: int


async def beat(connection: asyncpg.Connection, process: Process, stats: dict[str, Any]) -> None:
    """Say that a process lives, and how it does."""
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = off")
        await connection.execute(
            """
            INSERT INTO realtime_processes (id, host, pid, stats) VALUES ($1, $2, $3, $4::text::jsonb)
            ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), stats = excluded.stats
            """,
            process.id,
            process.host,
            process.pid,
            json.dumps(stats),
        )


async def crowds_of_others(
    connection: asyncpg.Connection, process: Process, seen_within: float
) -> list[dict[str, int]]:
    """What each other process told of users with many connections; those seen within so many seconds."""
    rows = await connection.fetch(
        """
        SELECT coalesce(stats -> 'crowds', '{}')::text AS crowds FROM realtime_processes
        WHERE id <> $1 AND seen_at >= statement_timestamp() - make_interval(secs => $2)
        """,
        process.id,
        seen_within,
    )
    return [json.loads(row["crowds"]) for row in rows]


async def leave(connection: asyncpg.Connection, process: Process) -> None:
    """Say that a process is gone."""
    await connection.execute("DELETE FROM realtime_processes WHERE id = $1", process.id)


async def forget_silent(connection: asyncpg.Connection, silent_for: float) -> int:
    """Remove processes not seen for so many seconds; one that still lives is back with its next beat."""
    forgotten = await connection.fetch(
        """
        WITH mine AS MATERIALIZED (
            SELECT id FROM realtime_processes
            WHERE seen_at < statement_timestamp() - make_interval(secs => $1)
            FOR UPDATE SKIP LOCKED)
        DELETE FROM realtime_processes AS p USING mine WHERE p.id = mine.id RETURNING p.id
        """,
        silent_for,
    )
    return len(forgotten)

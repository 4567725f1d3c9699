"""Which report of a process has counted last.

A COMMIT that is not answered may have happened. Written again under the same number, its report counts once.
"""

from uuid import UUID

import asyncpg


async def is_new(connection: asyncpg.Connection, reporter: UUID, number: int) -> bool:
    """Take the report of this number; False when it has counted. Numbers grow from report to report.

    It writes in either case, so that the COMMIT after it waits for whom the first one did not hear from.
    """
    new: bool = await connection.fetchval(
        """
        INSERT INTO realtime_reporters AS r (id, report) VALUES ($1, $2)
        ON CONFLICT (id) DO UPDATE
        SET report_before = r.report, report = excluded.report, reported_at = clock_timestamp()
        RETURNING report_before IS DISTINCT FROM report
        """,
        reporter,
        number,
    )
    return new


async def last_counted(connection: asyncpg.Connection, reporter: UUID) -> int:
    """Tell the number of the last report that has counted, 0 where none has."""
    number: int | None = await connection.fetchval(
        "SELECT report FROM realtime_reporters WHERE id = $1", reporter
    )
    return number or 0


async def forget_silent(connection: asyncpg.Connection, silent_for: float) -> None:
    """Remove reporters that have reported nothing for so many seconds."""
    await connection.execute(
        """
        WITH mine AS MATERIALIZED (
            SELECT id FROM realtime_reporters
            WHERE reported_at < statement_timestamp() - make_interval(secs => $1)
            FOR UPDATE SKIP LOCKED)
        DELETE FROM realtime_reporters AS r USING mine WHERE r.id = mine.id
        """,
        silent_for,
    )

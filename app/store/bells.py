"""When triggers may ring: the lease that writers look at, and the queue that they must not fill."""

import asyncpg

ALWAYS = (1 << 63) - 1
NEVER = 0


async def renew_lease(connection: asyncpg.Connection, seconds: float) -> None:
    """Ask to be rung for so many seconds from now, by the database's clock.

    `setval` on an unlogged sequence takes no xid, writes no WAL and is visible at once.
    """
    await connection.execute(
        """
        SELECT setval('realtime_ring_until',
                      (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $1::bigint)
        """,
        int(seconds * 1000),
    )


async def end_lease(connection: asyncpg.Connection, within: float, believed: float) -> None:
    """Let nobody be rung for longer than so many seconds from now, unless he asks anew.

    Not for a moment longer, where no more than one process, which is taken for this one, has said within
    `believed` seconds that it lives.
    """
    await connection.execute(
        """
        SELECT setval('realtime_ring_until',
                      least((SELECT last_value FROM realtime_ring_until),
                            (extract(epoch FROM clock_timestamp()) * 1000)::bigint + CASE WHEN (
                                SELECT count(*) FROM realtime_processes
                                WHERE seen_at >= statement_timestamp() - make_interval(secs => $2)
                            ) > 1 THEN $1::bigint ELSE 0 END))
        """,
        int(within * 1000),
        believed,
    )


async def ring_until(connection: asyncpg.Connection, moment: int) -> None:
    """Ring until a moment in unix milliseconds, or ALWAYS, or NEVER."""
    await connection.execute("SELECT setval('realtime_ring_until', $1::bigint)", moment)


async def queue_usage(connection: asyncpg.Connection) -> float:
    """How full the notification queue of the cluster is, 0 to 1; asking also lets it shrink."""
    usage: float = await connection.fetchval("SELECT pg_notification_queue_usage()")
    return usage

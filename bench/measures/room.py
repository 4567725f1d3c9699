"""A room of the host's, and messages posted to it."""

import asyncio
import statistics
import time
from dataclasses import dataclass

import asyncpg

from bench.postgres import query
from bench.stamps import now


@dataclass(frozen=True)
class Posted:
    """What posting cost the host, medians."""

    milliseconds: float
    wal_bytes: float


def open_room(dsn: str, members: int) -> None:
    """Room `room`, with users p0 … as members."""
    query(dsn, "INSERT INTO chat_rooms (id, name) VALUES ('room', 'room')")
    query(
        dsn,
        "INSERT INTO room_participants (room_id, user_id)"
        f" SELECT 'room', 'p' || n FROM generate_series(0, {members - 1}) AS n",
    )
    query(dsn, "ANALYZE room_participants")


def post(dsn: str, messages: int, interval: float) -> Posted:
    """Post so many messages, one every `interval` seconds; their ids carry when the insert began."""

    async def run() -> Posted:
        connection = await asyncpg.connect(dsn)
        insert = await connection.prepare(
            "INSERT INTO chat_messages (id, room_id, user_id, content) VALUES ($1, 'room', 'p0', 'Hello')"
        )
        took, wal = [], []
        for number in range(messages):
            before = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
            began = time.monotonic()
            await insert.fetch(f"at-{now()}-{number}")
            took.append((time.monotonic() - began) * 1000)
            wal.append(
                int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", before))
            )
            await asyncio.sleep(interval)
        await connection.close()
        return Posted(statistics.median(took), statistics.median(wal))

    return asyncio.run(run())

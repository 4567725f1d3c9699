"""Whose turn it is: what only one process may do at a time, a small batch after the other."""

from enum import IntEnum

import asyncpg


class Turn(IntEnum):
    """Advisory locks of the jobs that one process does at a time."""

    EXPIRE = 0x6D76_7274_6A6F_6201
    PURGE = 0x6D76_7274_6A6F_6202
    FORGET = 0x6D76_7274_6A6F_6203
    ERASE = 0x6D76_7274_6A6F_6204


async def take(connection: asyncpg.Connection, turn: Turn) -> bool:
    """Take the turn until the transaction ends; False when another process has it.

    Never for a session: a lock of that kind outlives the job where a pooler hands the session on.
    """
    taken: bool = await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", int(turn))
    return taken

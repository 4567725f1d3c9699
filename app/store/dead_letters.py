"""Dead letters: list them, and set what they are about on its way again. The rules are the functions'."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from app.store.outbox_sql import sayable

_PAGE = f"""
SELECT id, event_id, user_id, device_id, reason, detail, attempts, dead_at, event_type,
       CASE WHEN created_at IS NOT NULL THEN {sayable("created_at")} END, is_redrivable
FROM realtime_list_dead_letters($1, $2, $3)"""


class Held(Exception):  # noqa: N818 - what the table says, not a mistake
    """Somebody holds what would change; it can be tried again."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What was given up: for a device, or with None for the user.

    `event_type` and `created_at` are None when the event or sync row is gone.
    """

    id: int
    event_id: int
    user_id: str | None
    device_id: int | None
    reason: str
    detail: str | None
    attempts: int
    dead_at: datetime
    event_type: str | None
    created_at: datetime | None
    is_redrivable: bool


async def page(
    connection: asyncpg.Connection, user_id: str | None, after_id: int, at_most: int
) -> list[DeadLetter]:
    """List letters above an id in the order of their ids, of one user or of all."""
    rows = await connection.fetch(_PAGE, user_id, after_id, at_most)
    return [DeadLetter(*row) for row in rows]


async def exists(connection: asyncpg.Connection, letter_id: int) -> bool:
    """Whether there is such a letter."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM realtime_dead_letters WHERE id = $1)", letter_id
    )
    return found


async def redrive(connection: asyncpg.Connection, letter_id: int) -> bool:
    """Redrive what a letter is about; whether that could be done. Raises Held."""
    try:
        done: bool = await connection.fetchval("SELECT realtime_redrive($1)", letter_id)
    except asyncpg.LockNotAvailableError as error:
        raise Held from error
    return done


async def redrive_all(connection: asyncpg.Connection, user_id: str) -> int:
    """Redrive a user's first thousand letters that can be; returns how many. Raises Held, with none done."""
    try:
        count: int = await connection.fetchval("SELECT realtime_redrive_all($1)", user_id)
    except asyncpg.LockNotAvailableError as error:
        raise Held from error
    return count

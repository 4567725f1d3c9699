"""Rows of any age and state, written past the triggers."""

from typing import Any
from uuid import uuid4

import asyncpg


async def add_event(
    host: asyncpg.Connection,
    user_id: str,
    *,
    days: float,
    delivered: float | None = None,
    settled_as: str | None = None,
) -> int:
    """Add an event written so many days ago, delivered so many days ago, or settled; return its id."""
    return await host.fetchval(
        "INSERT INTO realtime_events (user_id, event_type, payload, created_at, delivered, delivered_at, settled_as)"
        " VALUES ($1, 'mood_update', '{}', now() - make_interval(secs => $2 * 86400), $3::float8 IS NOT NULL,"
        " now() - make_interval(secs => $3 * 86400), $4) RETURNING id",
        user_id,
        days,
        delivered,
        settled_as,
    )


async def add_sync_row(
    host: asyncpg.Connection,
    user_id: str,
    *,
    days: float,
    synced: float | None = None,
    device_id: int | None = None,
) -> int:
    """Add a sync row written and synced so many days ago; `device_id` uploaded it; return its id."""
    return await host.fetchval(
        "INSERT INTO sync_queue (user_id, action_type, payload, created_at, synced, synced_at, device_id)"
        " VALUES ($1, 'refresh', '{}', now() - make_interval(secs => $2 * 86400), $3::float8 IS NOT NULL,"
        " now() - make_interval(secs => $3 * 86400), $4) RETURNING id",
        user_id,
        days,
        synced,
        device_id,
    )


async def add_letter(
    host: asyncpg.Connection, event_id: int, *, days: float = 0, device_id: int | None = None
) -> None:
    """Add a dead letter of an event, written so many days ago."""
    await host.execute(
        "INSERT INTO realtime_dead_letters (event_id, device_id, reason, dead_at)"
        " VALUES ($1, $2, 'expired', now() - make_interval(secs => $3 * 86400))",
        event_id,
        device_id,
        days,
    )


async def add_redelivery(
    host: asyncpg.Connection,
    event_id: int,
    user_id: str,
    *,
    days: float = 0,
    device_id: int | None = None,
    pending: bool = True,
) -> None:
    """Add a record of a row that a device did not take, first so many days ago; pending ones are due now."""
    await host.execute(
        "INSERT INTO realtime_redeliveries (event_id, user_id, device_id, attempts, nacks, first_at, next_attempt_at)"
        " VALUES ($1, $2, $3, 1, 2, now() - make_interval(secs => $4 * 86400), CASE WHEN $5 THEN now() END)",
        event_id,
        user_id,
        device_id,
        days,
        pending,
    )


async def add_device(
    host: asyncpg.Connection, user_id: str, platform: str = "ios", *, days: float = 0
) -> tuple[int, str]:
    """Add a device last seen so many days ago; return its id and token."""
    token = f"token-{uuid4()}"
    device_id: int = await host.fetchval(
        "INSERT INTO users_devices (user_id, device_token, platform, last_active)"
        " VALUES ($1, $2, $3, now() - make_interval(secs => $4 * 86400)) RETURNING id",
        user_id,
        token,
        platform,
        days,
    )
    return device_id, token


async def add_many_events(
    host: asyncpg.Connection, count: int, *, users: int = 1000, columns: str = "", values: str = ""
) -> None:
    """Add events of many users, the users taking turns; `columns` get `values`, which may use `n`."""
    await host.execute(
        f"INSERT INTO realtime_events (user_id, event_type, payload{columns})"
        f" SELECT 'user-' || n % $2, 'mood_update', '{{}}'{values} FROM generate_series(1, $1::int) AS n",
        count,
        users,
    )


async def ids(host: asyncpg.Connection, table: str = "realtime_events") -> list[int]:
    """Ids that are in a table."""
    return [row[0] for row in await host.fetch(f"SELECT id FROM {table} ORDER BY id")]


async def letters(host: asyncpg.Connection) -> list[dict[str, Any]]:
    """The dead letters, by event."""
    return [
        dict(row)
        for row in await host.fetch(
            "SELECT event_id, user_id, device_id, reason, attempts FROM realtime_dead_letters ORDER BY event_id"
        )
    ]

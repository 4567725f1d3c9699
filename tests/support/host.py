"""What MindVibe's main API does, as plain SQL: it writes its own tables and knows nothing of the service."""

import json
from typing import Any
from uuid import uuid4

import asyncpg

from app.core.messages import RowKey
from app.core.moment import microseconds


async def add_user(host: asyncpg.Connection, user_id: str | None = None) -> str:
    """Register a user; return the id, a new one unless given."""
    user_id = user_id or f"user-{uuid4()}"
    await host.execute("INSERT INTO users (id) VALUES ($1) ON CONFLICT DO NOTHING", user_id)
    return user_id


async def delete_user(host: asyncpg.Connection, user_id: str) -> None:
    """Remove a user for good."""
    await host.execute("DELETE FROM users WHERE id = $1", user_id)


async def log_mood(host: asyncpg.Connection, user_id: str | None, score: int = 7) -> int:
    """Log a mood; return its id."""
    return await host.fetchval(
        "INSERT INTO moods (user_id, score) VALUES ($1, $2) RETURNING id", user_id, score
    )


async def log_moods(host: asyncpg.Connection, user_ids: list[str], count: int) -> None:
    """Log `count` moods, the users taking turns, in one statement; scores are 1 … `count`."""
    await host.execute(
        "INSERT INTO moods (user_id, score)"
        " SELECT ($1::text[])[1 + (n - 1) % cardinality($1::text[])], n"
        " FROM generate_series(1, $2::int) AS n",
        user_ids,
        count,
    )


async def create_room(host: asyncpg.Connection, *members: str, room_id: str | None = None) -> str:
    """Open a room with these members; return its id."""
    room_id = room_id or f"room-{uuid4()}"
    await host.execute("INSERT INTO chat_rooms (id, name) VALUES ($1, $1)", room_id)
    for member in members:
        await join_room(host, room_id, member)
    return room_id


async def join_room(host: asyncpg.Connection, room_id: str, user_id: str) -> None:
    """Make the user a member of the room."""
    await host.execute("INSERT INTO room_participants (room_id, user_id) VALUES ($1, $2)", room_id, user_id)


async def leave_room(host: asyncpg.Connection, room_id: str, user_id: str) -> None:
    """End the user's membership; the row stays, with its `left_at`."""
    await host.execute(
        "UPDATE room_participants SET left_at = now()"
        " WHERE room_id = $1 AND user_id = $2 AND left_at IS NULL",
        room_id,
        user_id,
    )


async def post_message(
    host: asyncpg.Connection,
    user_id: str | None,
    room_id: str | None = None,
    content: str = "Good morning",
) -> str:
    """Post a chat message, in a room where one is given; return its id."""
    message_id = f"message-{uuid4()}"
    await host.execute(
        "INSERT INTO chat_messages (id, room_id, user_id, content) VALUES ($1, $2, $3, $4)",
        message_id,
        room_id,
        user_id,
        content,
    )
    return message_id


async def write_entry(host: asyncpg.Connection, user_id: str, content: str = "sealed") -> str:
    """Write a journal entry; return its id."""
    entry_id = f"entry-{uuid4()}"
    await host.execute(
        "INSERT INTO journal_entries (id, user_id, encrypted_title, encrypted_content)"
        " VALUES ($1, $2, $3, $3)",
        entry_id,
        user_id,
        json.dumps({"sealed": content}),
    )
    return entry_id


async def queue_sync(
    host: asyncpg.Connection, user_id: str, action_type: str = "refresh", payload: Any = None
) -> int:
    """Queue a sync row for the user's mobile devices; return its id."""
    return await host.fetchval(
        "INSERT INTO sync_queue (user_id, action_type, payload) VALUES ($1, $2, $3) RETURNING id",
        user_id,
        action_type,
        json.dumps({} if payload is None else payload),
    )


async def publish(host: asyncpg.Connection, user_id: str, event_type: str, **payload: Any) -> int:
    """Publish an event of the host's own; return its id."""
    return await host.fetchval(
        "SELECT realtime_publish($1, $2, $3)", user_id, event_type, json.dumps(payload)
    )


async def row_keys(host: asyncpg.Connection, query: str, *arguments: object) -> tuple[RowKey, ...]:
    """Which rows those are whose ids and times a query finds."""
    return tuple((row_id, microseconds(at)) for row_id, at in await host.fetch(query, *arguments))

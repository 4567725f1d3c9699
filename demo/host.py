"""Plays MindVibe's main API: plain SQL on its own tables, which knows nothing of the service."""

import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

ROOM = "tea-room"


@dataclass(frozen=True, slots=True)
class Write:
    """One INSERT of the host's: the table, and a value for each column."""

    table: str
    values: dict[str, str | int]

    @property
    def sql(self) -> str:
        """The statement as it is run, with a parameter for each value."""
        return self._statement(" ", (f"${number}" for number, _ in enumerate(self.values, start=1)))

    def __str__(self) -> str:
        """Return the statement as it is shown: two lines, with its values in it."""
        return self._statement("\n", (_literal(value) for value in self.values.values()))

    def _statement(self, between: str, values: Iterable[str]) -> str:
        return f"INSERT INTO {self.table} ({', '.join(self.values)}){between}VALUES ({', '.join(values)})"


def mood(user: str, score: int) -> Write:
    """Log a mood."""
    return Write("moods", {"user_id": user, "score": score})


def chat_message(author: str, content: str) -> Write:
    """Post a message in the room."""
    return Write(
        "chat_messages",
        {"id": _new_id("message"), "room_id": ROOM, "user_id": author, "content": content},
    )


def journal_entry(user: str) -> Write:
    """Write a journal entry; the app has sealed what it says."""
    return Write(
        "journal_entries",
        {"id": _new_id("entry"), "user_id": user, "encrypted_content": '{"sealed": "..."}'},
    )


class Host:
    """The host's connection to its database."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator["Host"]:
        """Connect while the block runs."""
        connection = await asyncpg.connect(url)
        try:
            yield cls(connection)
        finally:
            await connection.close()

    async def add_users(self, users: Iterable[str]) -> None:
        """Register users, as members of the room."""
        await self._connection.execute("INSERT INTO chat_rooms (id) VALUES ($1) ON CONFLICT DO NOTHING", ROOM)
        for user in users:
            await self._connection.execute("INSERT INTO users (id) VALUES ($1) ON CONFLICT DO NOTHING", user)
            await self._connection.execute(
                "INSERT INTO room_participants (room_id, user_id) SELECT $1::text, $2::text WHERE NOT EXISTS"
                " (SELECT FROM room_participants WHERE room_id = $1 AND user_id = $2)",
                ROOM,
                user,
            )

    async def write(self, what: Write) -> None:
        """Run one INSERT in a transaction of its own."""
        await self._connection.execute(what.sql, *what.values.values())

    # ---- a look at the service's table, which a host has no need of

    async def forget_events(self, users: Iterable[str]) -> None:
        """Remove what an earlier run of the demo left in the outbox."""
        await self._connection.execute("DELETE FROM realtime_events WHERE user_id = ANY($1)", list(users))

    async def undelivered(self, user: str) -> list[int]:
        """Ids of the user's events that no client has confirmed yet, in order."""
        rows = await self._connection.fetch(
            "SELECT id FROM realtime_events WHERE user_id = $1 AND NOT delivered ORDER BY id", user
        )
        return [row["id"] for row in rows]


def _new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:8]}"


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"

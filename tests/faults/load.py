"""Hosts that write whatever happens to the database, and keep the record of what they committed."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import asyncpg

from tests.faults.history import History, HostError, Outcome, Row, Transaction

LEDGER = "CREATE TABLE ledger (transaction bigint PRIMARY KEY)"
"""Where each transaction leaves its number, so that one whose COMMIT was not answered can be asked for."""
AWAY = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
)
ANSWER_WITHIN = 20.0
"""Seconds after which a host gives up a statement."""


@dataclass
class Audience:
    """For whom it is written: users, rooms with their members, and users with mobile devices."""

    users: Sequence[str]
    rooms: dict[str, list[str]]
    mobile: Sequence[str]


@dataclass
class Load:
    """Shared by the writers of one run; `hold` is how long, in seconds, a long transaction stays open."""

    audience: Audience
    history: History
    seed: int
    hold: float = 3.0
    pause: float = 0.05
    bulk: int = 300
    loses: bool = False
    """Whether what was committed can be lost: then the primary of the end says what there is."""
    go_on: bool = True
    keys: "count[int]" = field(default_factory=lambda: count(1))
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    async def resolve(self, connection: asyncpg.Connection) -> None:
        """Learn from the ledger how transactions ended whose COMMIT was not answered, or did not last."""
        unsure = {Outcome.UNKNOWN} | ({Outcome.COMMITTED} if self.loses else set())
        asked_for = {
            row.transaction.number: row.transaction
            for row in self.history.rows
            if row.transaction.outcome in unsure
        }
        asked = "SELECT transaction FROM ledger WHERE transaction = ANY($1::bigint[])"
        there = {row["transaction"] for row in await connection.fetch(asked, list(asked_for))}
        for number, transaction in asked_for.items():
            if number in there:
                transaction.outcome = Outcome.COMMITTED
            else:
                transaction.outcome = Outcome.LOST if self.loses else Outcome.NEVER


class Writer:
    """One host connection after the other, until told to stop."""

    def __init__(self, load: Load, number: int, url: Callable[[], str]) -> None:
        self._load = load
        self._url = url
        self._rng = random.Random(f"{load.seed} writer {number}")
        self._transaction = Transaction(0, 0.0)
        self._worked_at = 0.0
        self._connection: asyncpg.Connection

    async def run(self) -> None:
        """Write; a database that is away is waited for."""
        while self._load.go_on:
            try:
                self._connection = await asyncpg.connect(
                    self._url(), timeout=ANSWER_WITHIN, command_timeout=ANSWER_WITHIN
                )
            except AWAY:
                await asyncio.sleep(0.1)
                continue
            try:
                self._worked_at = time.monotonic()
                while self._load.go_on:
                    await self._transact()
                    await asyncio.sleep(self._rng.uniform(0, 2 * self._load.pause))
            except AWAY as error:
                state = getattr(error, "sqlstate", None) or ""
                text = f"{type(error).__name__}: {error}"
                self._load.history.host_errors.append(
                    HostError(self._worked_at, time.monotonic(), state, text)
                )
            finally:
                self._connection.terminate()

    async def _transact(self) -> None:
        way = self._rng.choices(
            [self._one, self._several, self._with_savepoints, self._long, self._in_bulk],
            weights=[50, 30, 15, 1, 2],
        )[0]
        self._transaction = transaction = Transaction(next(self._load.numbers), time.monotonic())
        await self._connection.execute("BEGIN")
        self._worked_at = transaction.began
        await self._connection.execute("INSERT INTO ledger VALUES ($1)", transaction.number)
        await way()
        if self._rng.random() < 0.1:
            await self._connection.execute("ROLLBACK")
            return
        transaction.outcome, transaction.commit_began = Outcome.UNKNOWN, time.monotonic()
        await self._connection.execute("COMMIT")
        transaction.outcome, transaction.committed = Outcome.COMMITTED, time.monotonic()

    # ---- ways to write

    async def _one(self) -> None:
        await self._write_any()

    async def _several(self) -> None:
        for _ in range(self._rng.randint(2, 6)):
            await self._write_any()
            await asyncio.sleep(self._rng.uniform(0, 0.03))

    async def _with_savepoints(self) -> None:
        for _ in range(self._rng.randint(2, 4)):
            await self._connection.execute("SAVEPOINT s")
            if self._rng.random() < 0.3:
                kept, self._transaction = self._transaction, Transaction(0, time.monotonic())
                await self._write_any()
                self._transaction = kept
                await self._connection.execute("ROLLBACK TO s")
            else:
                await self._write_any()
            await self._connection.execute("RELEASE s")

    async def _long(self) -> None:
        await self._write_any()
        await asyncio.sleep(self._rng.uniform(0.3, 1) * self._load.hold)
        await self._write_any()

    async def _in_bulk(self) -> None:
        keys = [next(self._load.keys) for _ in range(self._load.bulk)]
        users = [self._rng.choice(self._load.audience.users) for _ in keys]
        for key, user in zip(keys, users, strict=True):
            self._note(key, user)
        await self._connection.execute(
            "INSERT INTO moods (user_id, score) SELECT * FROM unnest($1::text[], $2::int[])", users, keys
        )

    # ---- rows

    async def _write_any(self) -> None:
        ways: list[Callable[[int], Awaitable[object]]] = [
            self._mood,
            self._event,
            self._entry,
            self._room,
            self._sync,
        ]
        way = self._rng.choices(ways, weights=[3, 3, 1, 2, 2])[0]
        await way(next(self._load.keys))

    def _note(self, key: int, user: str, *, sync: bool = False) -> None:
        row = Row(key, user, self._transaction, time.monotonic(), sync=sync)
        self._load.history.rows.append(row)

    def _user(self) -> str:
        return self._rng.choice(self._load.audience.users)

    async def _mood(self, key: int) -> None:
        user = self._user()
        self._note(key, user)
        await self._connection.execute("INSERT INTO moods (user_id, score) VALUES ($1, $2)", user, key)

    async def _event(self, key: int) -> None:
        user = self._user()
        self._note(key, user)
        payload = json.dumps({"key": key, "user_id": user, "text": "x" * self._rng.choice((0, 100, 2000))})
        await self._connection.execute("SELECT realtime_publish($1, 'story', $2)", user, payload)

    async def _entry(self, key: int) -> None:
        user = self._user()
        self._note(key, user)
        await self._connection.execute(
            "INSERT INTO journal_entries (id, user_id, encrypted_title, encrypted_content)"
            " VALUES ($1, $2, '{}', '{}')",
            str(key),
            user,
        )

    async def _room(self, key: int) -> None:
        room, members = self._rng.choice(list(self._load.audience.rooms.items()))
        for member in members:
            self._note(key, member)
        await self._connection.execute(
            "INSERT INTO chat_messages (id, room_id, user_id, content) VALUES ($1, $2, $3, '')",
            str(key),
            room,
            members[0],
        )

    async def _sync(self, key: int) -> None:
        user = self._rng.choice(self._load.audience.mobile)
        self._note(key, user, sync=True)
        await self._connection.execute(
            "INSERT INTO sync_queue (user_id, action_type, payload) VALUES ($1, 'refresh', $2)",
            user,
            json.dumps({"key": key, "user_id": user}),
        )

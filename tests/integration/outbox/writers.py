"""Hosts that write moods in every way in which a transaction can end, and keep the truth of it."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg

from tests.support.postgres import Database
from tests.support.service import Received

SETUP = """
CREATE TABLE orders (score int PRIMARY KEY, user_id text NOT NULL);
CREATE FUNCTION log_later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO moods (user_id, score) VALUES (NEW.user_id, NEW.score);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER log_later AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION log_later();
CREATE UNIQUE INDEX ON moods (score);
"""
"""A host's table whose deferred trigger writes at commit, and moods that can conflict."""


@dataclass
class Written:
    """One mood of the truth; times are the monotonic clock's, around the server's own."""

    user_id: str
    transaction: int
    insert_began: float
    commit_began: float = 0.0
    committed: float = 0.0


@dataclass
class Truth:
    """Every committed mood by its score, which is unique, and those that never happened."""

    moods: dict[int, Written] = field(default_factory=dict)
    never: set[int] = field(default_factory=set)
    next_score: int = 1
    next_transaction: int = 1

    def of(self, users: Iterable[str]) -> set[int]:
        """The scores of these users."""
        wanted = set(users)
        return {score for score, written in self.moods.items() if written.user_id in wanted}

    def check(self, received: list[Received], users: Iterable[str]) -> None:
        """Everything committed exactly once, nothing before its commit or rolled back, in order (P3)."""
        scores = [one.data["mood_score"] for one in received]
        assert not self.never.intersection(scores), "a row that was rolled back arrived"
        assert len(scores) == len(set(scores)), "a row arrived twice"
        missing = self.of(users).difference(scores)
        assert not missing, f"{len(missing)} of {len(self.of(users))} rows are missing"
        assert set(scores) == self.of(users), "a row of somebody else arrived"
        for one in received:
            assert one.at >= self.moods[one.data["mood_score"]].commit_began, "a row before its commit"
        self.check_order(scores)

    def check_order(self, scores: list[int]) -> None:
        """If A committed before B was written, A came first; rows of one transaction in their order."""
        earliest_later_commit = float("inf")
        last_of: dict[int, int] = {}
        for score in reversed(scores):
            written = self.moods[score]
            assert earliest_later_commit >= written.insert_began, "a row came before one committed earlier"
            earliest_later_commit = min(earliest_later_commit, written.committed)
            assert last_of.get(written.transaction, score) >= score, "rows of a transaction out of order"
            last_of[written.transaction] = score


class Writer:
    """One host connection that writes in random ways until told to stop."""

    def __init__(self, connection: asyncpg.Connection, truth: Truth, users: list[str], seed: int) -> None:
        self.connection = connection
        self.truth = truth
        self.users = users
        self.rng = random.Random(seed)
        self.pending: dict[int, Written] = {}
        self.transaction = 0
        self.done: dict[str, int] = defaultdict(int)

    async def run(self, go_on: Callable[[], bool]) -> None:
        ways: list[Callable[[], Awaitable[None]]] = [
            self.at_once,
            self.late,
            self.with_savepoints,
            self.rolled_back,
            self.copied,
            self.conflicting,
            self.deferred,
            self.in_two_phases,
        ]
        turn = 0
        while go_on():
            # Each way at least once, then by chance; many subtransactions take long and come seldom.
            way = ways[turn] if turn < len(ways) else self.rng.choice(ways)
            if turn == 3 or self.rng.random() < 0.02:
                await self.with_many_subtransactions()
            await way()
            self.done[way.__name__] += 1
            turn += 1

    # ---- ways to write

    async def at_once(self) -> None:
        """One row in a transaction of its own."""
        self.begin()
        score, user = self.new()
        self.commits()
        await self.connection.execute("INSERT INTO moods (user_id, score) VALUES ($1, $2)", user, score)
        self.committed()

    async def late(self) -> None:
        """Several rows, and a commit some time after the last."""
        async with self.held():
            for _ in range(self.rng.randint(1, 5)):
                await self.insert()
                await self.pause()

    async def with_savepoints(self) -> None:
        """Rows in savepoints, some of them rolled back."""
        async with self.held():
            for _ in range(self.rng.randint(2, 6)):
                await self.savepoint()

    async def with_many_subtransactions(self) -> None:
        """More than the 64 that a backend shows to others."""
        async with self.held():
            for _ in range(70):
                await self.savepoint()
            await self.pause()

    async def rolled_back(self) -> None:
        """A transaction that never happened."""
        self.begin()
        await self.connection.execute("BEGIN")
        for _ in range(3):
            await self.insert()
        await self.pause()
        await self.connection.execute("ROLLBACK")
        self.forgets()

    async def copied(self) -> None:
        """Rows by COPY."""
        self.begin()
        rows = [(user, score) for score, user in (self.new() for _ in range(20))]
        self.commits()
        await self.connection.copy_records_to_table("moods", records=rows, columns=["user_id", "score"])
        self.committed()

    async def conflicting(self) -> None:
        """A row that is there already, and is written once."""
        async with self.held():
            score, user = self.new()
            for _ in range(2):
                await self.connection.execute(
                    "INSERT INTO moods (user_id, score) VALUES ($1, $2)"
                    " ON CONFLICT (score) DO UPDATE SET note = 'again'",
                    user,
                    score,
                )

    async def deferred(self) -> None:
        """Rows written by a deferred trigger, within the commit."""
        async with self.held():
            for _ in range(3):
                score, user = self.new()
                await self.connection.execute("INSERT INTO orders VALUES ($1, $2)", score, user)
                await self.pause()

    async def in_two_phases(self) -> None:
        """A prepared transaction, committed or rolled back later by way of its name."""
        name = f"prepared-{uuid4()}"
        self.begin()
        await self.connection.execute("BEGIN")
        await self.connection.execute("SET LOCAL realtime.bells = 'off'")
        for _ in range(3):
            await self.insert()
        await self.connection.execute(f"PREPARE TRANSACTION '{name}'")
        kept, self.pending, number = self.pending, {}, self.transaction
        await self.at_once()
        self.pending, self.transaction = kept, number
        if self.rng.random() < 0.3:
            await self.connection.execute(f"ROLLBACK PREPARED '{name}'")
            self.forgets()
        else:
            self.commits()
            await self.connection.execute(f"COMMIT PREPARED '{name}'")
            self.committed()

    # ---- bookkeeping

    def held(self) -> "_Held":
        return _Held(self)

    def begin(self) -> None:
        assert not self.pending
        self.transaction, self.truth.next_transaction = (
            self.truth.next_transaction,
            self.truth.next_transaction + 1,
        )

    def new(self) -> tuple[int, str]:
        score, self.truth.next_score = self.truth.next_score, self.truth.next_score + 1
        user = self.rng.choice(self.users)
        self.pending[score] = Written(user, self.transaction, time.monotonic())
        return score, user

    async def insert(self) -> None:
        score, user = self.new()
        await self.connection.execute("INSERT INTO moods (user_id, score) VALUES ($1, $2)", user, score)

    async def savepoint(self) -> None:
        await self.connection.execute("SAVEPOINT s")
        score, user = self.new()
        await self.connection.execute("INSERT INTO moods (user_id, score) VALUES ($1, $2)", user, score)
        if self.rng.random() < 0.3:
            await self.connection.execute("ROLLBACK TO s")
            del self.pending[score]
            self.truth.never.add(score)
        await self.connection.execute("RELEASE s")

    async def pause(self) -> None:
        """Let others commit meanwhile."""
        await asyncio.sleep(self.rng.uniform(0, 0.02))

    def commits(self) -> None:
        for written in self.pending.values():
            written.commit_began = time.monotonic()
        # From here on it can arrive.
        self.truth.moods.update(self.pending)

    def committed(self) -> None:
        for written in self.pending.values():
            written.committed = time.monotonic()
        self.pending = {}

    def forgets(self) -> None:
        self.truth.never.update(self.pending)
        self.pending = {}


class _Held:
    """A transaction of a writer, committed at the end."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def __aenter__(self) -> None:
        self._writer.begin()
        await self._writer.connection.execute("BEGIN")

    async def __aexit__(self, *_: object) -> None:
        self._writer.commits()
        await self._writer.connection.execute("COMMIT")
        self._writer.committed()


async def write(
    database: Database,
    truth: Truth,
    users: list[str],
    *,
    writers: int,
    rows: int,
    seed: int,
    while_: Callable[[], bool] = lambda: False,
) -> dict[str, int]:
    """Let writers write about so many rows, and on `while_`; returns how often each way was gone."""
    enough = len(truth.moods) + rows
    made = [Writer(await database.connect(), truth, users, seed * 1000 + number) for number in range(writers)]
    await asyncio.gather(*(writer.run(lambda: len(truth.moods) < enough or while_()) for writer in made))
    done: dict[str, int] = defaultdict(int)
    for writer in made:
        for way, times in writer.done.items():
            done[way] += times
    return done

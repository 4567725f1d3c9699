"""One run from a seed: users and their clients, writers, faults; then everything is mended, drained and checked."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx2

from tests.e2e.conformance.apps import Acking, App, Plain
from tests.faults import checker, load
from tests.faults.checker import Bounds, Finding
from tests.faults.clients import KINDS, WINDOW, Client, key_of, make
from tests.faults.history import History, Left, Letter, Outcome
from tests.faults.injector import Fault, Injector
from tests.faults.load import Audience, Load, Writer
from tests.faults.world import World
from tests.support import host
from tests.support.postgres import Database
from tests.support.roles import create_roles, drop_roles

UNDELIVERED = "SELECT count(*) FROM realtime_events WHERE NOT delivered AND settled_as IS NULL"
ALL_OLDER = """
SELECT bool_and(created_at < clock_timestamp() - make_interval(secs => $1)) FROM realtime_events
WHERE NOT delivered AND settled_as IS NULL"""
UNSYNCED = "SELECT count(*) FROM sync_queue WHERE NOT synced"
PENDING = "SELECT count(*) FROM realtime_delivery WHERE state = 'pending'"
LETTERS = """
SELECT l.user_id, d.device_token, coalesce(e.event_type, 'sync') AS type,
       coalesce(e.payload, jsonb_build_object('payload', s.payload))::text AS data
FROM realtime_dead_letters AS l
LEFT JOIN realtime_events AS e ON e.id = l.event_id LEFT JOIN sync_queue AS s ON s.id = l.event_id
LEFT JOIN users_devices AS d ON d.id = l.device_id
WHERE num_nonnulls(e.id, s.id) > 0"""


@dataclass(frozen=True)
class Plan:
    """What a chapter is made of; times are seconds.

    `patience`: how long the drain may make no progress. `users` are many more than what is written in one breath.
    """

    seed: int
    seconds: float
    faults: Sequence[Fault] = ()
    users: int = 5
    writers: int = 3
    hold: float = 3.0
    pause: float = 0.05
    hands: int = 2
    calm: float = 1.0
    slots: int = 3
    patience: float = 60.0
    kinds: Sequence[type[App]] = KINDS
    settings: dict[str, Any] = field(default_factory=dict)
    retention: bool = False
    loses: bool = False
    """Whether the host can lose what it committed."""


@dataclass
class Report:
    """What came of a chapter; `delays` are seconds from commit to the first copy, sorted."""

    findings: list[Finding]
    history: History
    faults: Counter[str]
    delays: list[float]
    drained_in: float

    def __str__(self) -> str:
        """A few lines for people."""
        history = self.history
        outcomes = Counter(row.transaction.outcome for row in history.rows)
        committed, lost = outcomes[Outcome.COMMITTED], outcomes[Outcome.LOST]
        copies = [copy for reader in history.readers for copy in reader.copies]
        again = len(copies) - sum(len({copy.key for copy in each.copies}) for each in history.readers)
        told = sum(len(reader.told) for reader in history.readers)
        faults = ", ".join(f"{n} x {name}" for name, n in sorted(self.faults.items())) or "none"
        lines = [
            f"  {committed} messages owed, {len(history.rows) - committed - lost} rolled back or failed,",
            f"  {lost} committed and lost by the database,",
            f"  {len(history.host_errors)} transactions of hosts broken",
            f"  {len(history.readers)} readers, {sum(reader.cuts for reader in history.readers)} connections,",
            f"  {len(copies)} copies, {again} of them again, {len(history.letters)} dead letters, {told} gaps told",
            f"  drained in {self.drained_in:.1f} s",
            f"  faults: {faults}",
        ]
        if self.delays:
            at = [
                self.delays[min(int(len(self.delays) * q), len(self.delays) - 1)] for q in (0.5, 0.95, 0.99)
            ]
            lines.append(
                "  commit to first copy: p50 {:.3f} s, p95 {:.2f} s, p99 {:.2f} s, longest {:.1f} s".format(
                    *at, self.delays[-1]
                )
            )
        lines += [f"  FOUND {finding}" for finding in self.findings] or ["  nothing found"]
        return "\n".join(lines)


class Chapter:
    """One run on a database that is its own, with processes of its own."""

    def __init__(self, plan: Plan, database: Database, **world: Any) -> None:
        self._plan = plan
        self.history = History()
        self.world = World(database, self.history, slots=plan.slots, **plan.settings, **world)
        self.bounds = Bounds(WINDOW, self.world.settings["stale_after"], retention=plan.retention)
        self.clients: list[Client] = []
        self._names: dict[str, str] = {}
        self._load: Load

    async def run(self) -> Report:
        """Make it, break it, mend it, drain it, check it."""
        plan, history = self._plan, self.history
        await create_roles(self.world.database)
        try:
            await self._settle_in()
            await self.world.open()
            await self._register()
            for client in self.clients:
                client.start()
            writing = self._write()
            injector = Injector(
                self.world, self.clients, plan.faults, seed=str(plan.seed), hands=plan.hands, pause=plan.calm
            )
            await injector.run(plan.seconds) if plan.faults else await asyncio.sleep(plan.seconds)
            self._load.go_on = False
            await asyncio.gather(*writing)
            began = time.monotonic()
            await self._drain()
            drained_in = time.monotonic() - began
        finally:
            for client in self.clients:
                await client.stop()
                history.oddities += client.oddities
            await self.world.close()
            await asyncio.sleep(0.1)  # transports that were aborted close by themselves
        findings = checker.check(history, self.bounds)
        return Report(findings, history, injector.counts, _delays(history), drained_in)

    # ---- before

    async def _settle_in(self) -> None:
        plan = self._plan
        users = [f"user-{number}" for number in range(plan.users)]
        connection = await self.world.admin()
        await connection.execute(load.LEDGER)
        for user in users:
            await host.add_user(connection, user)
        rooms = {
            await host.create_room(connection, *members): list(members)
            for members in (tuple(users[:2]), tuple(users[1:]))
        }
        await connection.close()
        # Two have no device: all connections of such a user together are owed everything. What one of them
        # cannot process is sent again to all, who can tell only where they ack.
        *with_devices, silent, acking = users
        self._load = Load(
            Audience(users, rooms, with_devices),
            self.history,
            plan.seed,
            hold=plan.hold,
            pause=plan.pause,
            loses=plan.loses,
        )
        for user in with_devices:
            for kind in plan.kinds:
                self._enroll(kind, user, f"{kind.name} of {user}")
        for kind in (Plain, *plan.kinds):
            self._enroll(kind, acking if issubclass(kind, Acking) else silent, None)

    def _enroll(self, kind: type[App], user: str, token: str | None) -> None:
        number = len(self.clients)
        reader, app = make(kind, user, token, number=number, seed=self._plan.seed * 1000 + number)
        self.history.readers.append(reader)
        if token is not None:
            self._names[token] = reader.name
        seed = f"{self._plan.seed} client {number}"
        rng = random.Random(seed)
        self.clients.append(Client(reader, app, lambda: self.world.random_address(rng), seed=seed))

    async def _register(self) -> None:
        server = self.world.slots[0].server
        assert server is not None
        for token in self._names:
            user = token.rpartition(" of ")[2]
            device = {"user_id": user, "device_token": token, "platform": "ios"}
            answer = await server.request("POST", "/realtime/devices", json=device)
            assert answer.status_code == 201, answer.text

    def _write(self) -> list[asyncio.Task[None]]:
        writers = [
            Writer(self._load, number, lambda: self.world.database.url)
            for number in range(self._plan.writers)
        ]
        return [asyncio.create_task(writer.run()) for writer in writers]

    # ---- after

    async def _drain(self) -> None:
        """Wait until everything has come and is marked; what has not by then is found by the checker."""
        until, seen = time.monotonic() + self._plan.patience, (0, Left())
        recalled = False
        for proxy in (proxy for slot in self.world.slots for proxy in slot.proxies):
            proxy.heal()
        while True:
            with contextlib.suppress(*load.AWAY):
                connection = await self.world.admin()
                try:
                    await self._load.resolve(connection)
                    self.history.letters = [self._letter(row) for row in await connection.fetch(LETTERS)]
                    self.history.left = await self._left(connection)
                finally:
                    await connection.close()
                if not checker.missing(self.history, self.bounds) and self.history.left == Left():
                    return
            if (
                progress := (sum(len(each.copies) for each in self.history.readers), self.history.left)
            ) != seen:
                until, seen = time.monotonic() + self._plan.patience, progress
            if time.monotonic() > until:
                if recalled or not await self._a_crash_took_receipts():
                    return
                # Where nobody leaves, what is stale comes again, which takes longer here than a chapter.
                recalled, until = True, time.monotonic() + self._plan.patience
                for slot in self.world.slots:
                    slot.entrance.cut()
            await asyncio.sleep(0.3)

    async def _a_crash_took_receipts(self) -> bool:
        """Whether all that is not marked is from before the last one; receipts are committed asynchronously."""
        crashes = [fault.ended for fault in self.history.faults if fault.restart]
        if not crashes or checker.missing(self.history, self.bounds):
            return False
        with contextlib.suppress(*load.AWAY):
            connection = await self.world.admin()
            try:
                return bool(await connection.fetchval(ALL_OLDER, time.monotonic() - max(crashes)))
            finally:
                await connection.close()
        return False

    def _letter(self, row: asyncpg.Record) -> Letter:
        key = key_of({"type": row["type"], "data": json.loads(row["data"])})
        token = row["device_token"]
        return Letter(row["user_id"], key, None if token is None else self._names[token])

    async def _left(self, connection: asyncpg.Connection) -> Left:
        unwritten = 0
        for slot in self.world.slots:
            if slot.server is not None:
                with contextlib.suppress(httpx2.HTTPError):
                    unwritten += (await slot.server.health())["receipts"]["unwritten"]
        return Left(
            await connection.fetchval(UNDELIVERED),
            await connection.fetchval(UNSYNCED),
            0 if self._plan.retention else await connection.fetchval(PENDING),
            unwritten,
        )


def _delays(history: History) -> list[float]:
    committed = {(row.user, row.key): row.transaction.committed for row in history.rows}
    firsts: dict[tuple[str, int], float] = {}
    for reader in history.readers:
        for copy in reader.copies:
            key = copy.whose, copy.key
            firsts[key] = min(copy.at, firsts.get(key, copy.at))
    return sorted(max(at - committed[key], 0.0) for key, at in firsts.items() if key in committed)


async def run(plan: Plan, database: Database, **world: Any) -> Report:
    """Run one chapter on a migrated database; its roles are taken away again."""
    try:
        return await Chapter(plan, database, **world).run()
    finally:
        with contextlib.suppress(*load.AWAY):
            await drop_roles(database)

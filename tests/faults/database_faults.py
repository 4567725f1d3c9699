"""What happens to PostgreSQL, and to the connections to it."""

import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path

import asyncpg

from app.embedded import Cluster
from tests.faults.history import INFINITY, History
from tests.faults.injector import DatabaseFault
from tests.faults.load import AWAY
from tests.faults.world import World

BACKENDS = """
SELECT pid FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND datname = current_database()"""

ENOUGH = 20
"""How many messages that clients have an asynchronous standby is to lack when it is promoted."""


class PostmasterKilled(DatabaseFault):
    """SIGKILL of the postmaster; its backends find out by themselves. Then a start with crash recovery."""

    name = "SIGKILL of the postmaster"
    restart = True

    async def attack(self, world: World, rng: random.Random) -> None:
        """Kill and start."""
        os.kill(int(world.cluster.data_dir.joinpath("postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        await asyncio.sleep(rng.uniform(0, 2))
        await asyncio.to_thread(world.cluster.start)


class BackendKilled(DatabaseFault):
    """SIGKILL of one backend, upon which the postmaster ends all and recovers."""

    name = "SIGKILL of a backend"
    restart = True

    async def attack(self, world: World, rng: random.Random) -> None:
        """Kill, and wait until it has recovered."""
        connection = await world.admin()
        pids = [row["pid"] for row in await connection.fetch(BACKENDS)]
        if pids:
            os.kill(rng.choice(pids), signal.SIGKILL)
        connection.terminate()
        await _back(world)


class Restarted(DatabaseFault):
    """A clean restart, or an immediate one."""

    name = "restart of PostgreSQL"
    restart = True

    async def attack(self, world: World, rng: random.Random) -> None:
        """Stop and start."""
        await asyncio.to_thread(world.cluster.stop, rng.choice(("fast", "immediate")))
        await asyncio.sleep(rng.uniform(0, 2))
        await asyncio.to_thread(world.cluster.start)


class BackendsTerminated(DatabaseFault):
    """pg_terminate_backend on any connections, of the hosts and of the service, several times."""

    name = "pg_terminate_backend"

    async def attack(self, world: World, rng: random.Random) -> None:
        """Terminate some, again and again."""
        for _ in range(rng.randint(1, 5)):
            connection = await world.admin()
            try:
                for row in await connection.fetch(BACKENDS):
                    if rng.random() < 0.3:
                        await connection.execute("SELECT pg_terminate_backend($1)", row["pid"])
            finally:
                connection.terminate()
            await asyncio.sleep(rng.uniform(0, 0.5))


class TableFull(DatabaseFault):
    """Nobody else gets a connection for a while, and those that were there are lost."""

    name = "full connection table"

    async def attack(self, world: World, rng: random.Random) -> None:
        """Take what there is as soon as it is free."""
        held: list[asyncpg.Connection] = []
        admin = await world.admin()
        try:
            await admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({BACKENDS}) AS others")
            for _ in range(rng.randint(20, 60)):
                with contextlib.suppress(*AWAY):
                    while True:
                        held.append(await asyncpg.connect(world.database.url, timeout=10))
                await asyncio.sleep(0.05)
        finally:
            for connection in [*held, admin]:
                connection.terminate()


class Frozen(DatabaseFault):
    """SIGSTOP of every backend: statements neither succeed nor fail, as on a disk that does not answer."""

    name = "SIGSTOP of PostgreSQL"

    async def attack(self, world: World, rng: random.Random) -> None:
        """Stop and continue."""
        connection = await world.admin()
        pids = [row["pid"] for row in await connection.fetch(BACKENDS)]
        connection.terminate()
        try:
            _signal(pids, signal.SIGSTOP)
            await asyncio.sleep(rng.uniform(2, 6))
        finally:
            _signal(pids, signal.SIGCONT)


class Failover(DatabaseFault):
    """The primary is killed and its standby promoted; once, since there is no other."""

    name = "failover to a synchronous standby"
    restart = True
    once = True

    async def attack(self, world: World, rng: random.Random) -> None:
        """Kill, promote, lead everybody there."""
        standby, world.standby = world.standby, None
        if standby is None:
            raise RuntimeError("there is no standby")
        await asyncio.sleep(rng.uniform(5, 15))
        await self.hold_up(standby, world)
        await asyncio.to_thread(world.cluster.kill)
        await asyncio.sleep(rng.uniform(0, 2))
        await asyncio.to_thread(standby.tool, "psql", "-XAtqc", "SELECT pg_promote()")
        world.lead_to(standby)

    async def hold_up(self, standby: Cluster, world: World) -> None:
        """Keep from the standby what is committed meanwhile; nobody may where commits wait for it."""


def _read_since(history: History, since: float) -> int:
    """How many messages that were committed since then somebody has."""
    young = {(row.user, row.key) for row in history.rows if since < row.transaction.committed < INFINITY}
    return len({(copy.whose, copy.key) for reader in history.readers for copy in reader.copies} & young)


class LossyFailover(Failover):
    """The same with a standby that lags behind: what it has not got is gone, and ids are handed out again."""

    name = "failover to an asynchronous standby"

    async def hold_up(self, standby: Cluster, world: World) -> None:
        """Let it lose touch with the primary until clients have what was committed there without it."""
        for command in ("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"):
            await asyncio.to_thread(standby.tool, "psql", "-XAtqc", command)
        cut = time.monotonic()
        async with asyncio.timeout(300):
            while _read_since(world.history, cut) < ENOUGH:  # noqa: ASYNC110 - a record of what was, which tells nobody
                await asyncio.sleep(0.1)


class DiskFull(DatabaseFault):
    """No room where PostgreSQL has its files: it ends, or cannot start. Then there is room again."""

    name = "full disk"
    restart = True

    async def attack(self, world: World, rng: random.Random) -> None:
        """Fill and free."""
        filler = world.cluster.home / "filler"
        try:
            await asyncio.to_thread(_fill, filler)
            await asyncio.sleep(rng.uniform(2, 6))
        finally:
            filler.unlink(missing_ok=True)
        await asyncio.sleep(1)
        await asyncio.to_thread(world.cluster.start)
        await _back(world)


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def _back(world: World) -> None:
    """Wait until the server takes connections."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(*AWAY):
                (await world.admin()).terminate()
                return
            await asyncio.sleep(0.05)


DATABASE_FAULTS = (PostmasterKilled, BackendKilled, Restarted, BackendsTerminated, TableFull, Frozen)

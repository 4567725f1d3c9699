"""The grounds of chapters: which PostgreSQL, which settings, which clocks, and what can be broken there."""

import asyncio
import random
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg

from app.embedded import Cluster
from tests.faults.chapter import Plan, Report, run
from tests.faults.client_faults import CLIENT_FAULTS
from tests.faults.database_faults import DATABASE_FAULTS, DiskFull, Failover, LossyFailover
from tests.faults.network_faults import NETWORK_FAULTS
from tests.faults.process_faults import PROCESS_FAULTS
from tests.support.postgres import Database, Servers, create_database, discard

OPTIONS = {"max_connections": "60"}
AROUND = (*PROCESS_FAULTS, *NETWORK_FAULTS, *CLIENT_FAULTS)
EVERYTHING = (*AROUND, *DATABASE_FAULTS)
RETENTION = {
    "retention_days": 6 / 86400,
    "synced_days": 6 / 86400,
    "housekeeping_interval": 0.3,
    "sse_confirmed_after": 15,
}
"""What is delivered is removed six seconds later, as soon as the tail allows.

A proxy takes bytes for a stream that it holds back: what it has for as long as that counts as delivered.
"""
DISK = "384m"

Scenery = Callable[[int, float, Servers], Awaitable[Report]]


def _settings(rng: random.Random) -> dict[str, object]:
    return {
        "bells": rng.choice(("leased", "leased", "always", "off")),
        "stale_after": rng.choice((5, 600)),
        "pool_size": rng.choice((2, 5)),
        "receipts_interval": rng.choice((0.05, 1.0)),
    }


def _plan(seed: int, seconds: float, **options: object) -> Plan:
    rng = random.Random(f"plan {seed}")
    settings = _settings(rng) | dict(options.pop("settings", {}))  # type: ignore[call-overload]
    faults = [kind() for kind in options.pop("faults", EVERYTHING)]  # type: ignore[attr-defined]
    pause = rng.choice((0.02, 0.05, 0.2))
    return Plan(seed, seconds, faults, hold=seconds / 2, pause=pause, settings=settings, **options)  # type: ignore[arg-type]


async def ordinary(seed: int, seconds: float, servers: Servers) -> Report:
    """One PostgreSQL, three processes, everything that can break."""
    cluster = _private(servers)
    try:
        return await run(_plan(seed, seconds), await create_database(cluster))
    finally:
        discard(cluster)


async def forgetful(seed: int, seconds: float, servers: Servers) -> Report:
    """Retention takes what has been delivered at once: who was away is told so."""
    cluster = _private(servers)
    try:
        plan = _plan(seed, seconds, settings=RETENTION, retention=True)
        return await run(plan, await create_database(cluster))
    finally:
        discard(cluster)


async def wrong_clocks(seed: int, seconds: float, servers: Servers) -> Report:
    """One process lives an hour ahead, another an hour behind."""
    cluster = _private(servers)
    clocks = {1: "tests.faults.clocks.ahead:app", 2: "tests.faults.clocks.behind:app"}
    try:
        return await run(_plan(seed, seconds), await create_database(cluster), applications=clocks)
    finally:
        discard(cluster)


async def failing_over(seed: int, seconds: float, servers: Servers) -> Report:
    """A synchronous standby, which is promoted in place of a primary that is killed.

    The primary is left alone before: a backend that ends while it waits for the standby has committed, and
    its row can be seen, although the standby may not have it.
    """
    async with _with_standby(servers) as (database, standby):
        connection = await asyncpg.connect(database.url)
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()
        return await run(_plan(seed, seconds, faults=(*AROUND, Failover)), database, standby=standby)


async def failing_over_late(seed: int, seconds: float, servers: Servers) -> Report:
    """A standby that commits do not wait for, promoted when it has lagged behind: what it lacks is owed no more."""
    async with _with_standby(servers) as (database, standby):
        plan = _plan(seed, seconds, faults=(*AROUND, LossyFailover), loses=True)
        return await run(plan, database, standby=standby)


async def full_disk(seed: int, seconds: float, servers: Servers) -> Report:
    """The files of PostgreSQL are on a small disk, which is filled up."""
    options = OPTIONS | {"max_wal_size": "64MB", "min_wal_size": "32MB"}
    cluster = servers._cluster(f"disk-{uuid4().hex[:8]}", max(servers.installations), options=options)
    cluster.home.mkdir()
    _mount(cluster.home)
    try:
        cluster.init()
        cluster.start()
        plan = _plan(seed, seconds, faults=(*EVERYTHING, DiskFull, DiskFull, DiskFull))
        return await run(plan, await create_database(cluster))
    finally:
        discard(cluster)
        _unmount(cluster.home)


def _mount(place: Path) -> None:
    """Make a small disk; raises CalledProcessError, or FileNotFoundError without the program."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", place], check=True, capture_output=True
    )


def _unmount(place: Path) -> None:
    subprocess.run(["umount", "--lazy", place], check=True)
    place.rmdir()


def may_mount() -> bool:
    """Whether a small disk can be made here."""
    place = Path(tempfile.mkdtemp())
    try:
        _mount(place)
    except (FileNotFoundError, subprocess.CalledProcessError):
        place.rmdir()
        return False
    _unmount(place)
    return True


def sceneries() -> list[tuple[str, Scenery]]:
    """All that can be had on this machine, in the order in which they are played."""
    found: list[tuple[str, Scenery]] = [
        ("ordinary", ordinary),
        ("failover", failing_over),
        ("lossy failover", failing_over_late),
        ("retention", forgetful),
        ("clocks", wrong_clocks),
    ]
    if may_mount():
        found.append(("full disk", full_disk))
    else:
        print("not tried: a full disk, since nothing can be mounted here", flush=True)  # noqa: T201
    return found


def play(scenery: Scenery, seed: int, seconds: float, servers: Servers) -> Report:
    """Play one chapter."""
    return asyncio.run(scenery(seed, seconds, servers))


@asynccontextmanager
async def _with_standby(servers: Servers) -> AsyncIterator[tuple[Database, Cluster]]:
    primary = _private(servers)
    standby: Cluster | None = None
    try:
        database = await create_database(primary)
        standby = servers.standby(primary, options=OPTIONS)
        yield database, standby
    finally:
        for cluster in (primary, standby):
            if cluster is not None:
                discard(cluster)


def _private(servers: Servers) -> Cluster:
    return servers.private(max(servers.installations), options=OPTIONS)

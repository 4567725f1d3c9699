"""Real PostgreSQL servers and databases for tests.

A test run has a directory of its own, held by a file lock, with one server per major version in it, started
when first needed. A run that was killed cannot keep its lock, so the next run knows what to clear up. With
xdist every worker is such a run. The directory is in memory where there is plenty of that (set TMPDIR to
have it elsewhere): copying a database takes 12 ms there, and 30 to 300 ms on a disk.

A test gets a fresh database, copied from a template that is migrated once per server.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import asyncpg

from app.embedded import Account, Binaries, Cluster, EmbeddedError, find_all, server_account
from app.embedded.account import can_enter
from app.embedded.binaries import reachable_by

ROOT = Path(__file__).parents[2]
TEMPLATE = "migrated"
OPTIONS = {
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "wal_level": "replica",
    "shared_buffers": "64MB",
    "jit": "off",
    "log_checkpoints": "off",
    "max_wal_size": "256MB",
}
DISPOSABLE = {"fsync": "off", "full_page_writes": "off"}
CLOSE_TIMEOUT = 5  # seconds
MEMORY = Path("/dev/shm")
PLENTY = 8 << 30  # bytes free in MEMORY, which by default may take half of the machine's


class Database:
    """One database of a test; whatever connections it gave out are closed with it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self._connections: list[asyncpg.Connection] = []

    @property
    def url(self) -> str:
        """The address over the socket, as the superuser; `cluster.url` makes others."""
        return self.cluster.url(self.name)

    @property
    def sqlalchemy_url(self) -> str:
        """The same for `create_async_engine`."""
        return self.cluster.url(self.name, driver="+asyncpg")

    async def connect(
        self, *, user: str = "postgres", tcp: bool = False, **options: Any
    ) -> asyncpg.Connection:
        """Open a connection that is closed at the end of the test."""
        url = self.cluster.url(self.name, user=user, tcp=tcp)
        connection: asyncpg.Connection = await asyncpg.connect(url, **options)
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        """Close the connections; one whose server is gone or stuck is cut off."""
        for connection in self._connections:
            with contextlib.suppress(
                OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
            ):
                await connection.close(timeout=CLOSE_TIMEOUT)
            if not connection.is_closed():
                connection.terminate()
        self._connections.clear()
        await asyncio.sleep(0)  # lets the transports close


class Servers:
    """The servers of one test run."""

    def __init__(self) -> None:
        self.installations = {found.major: found for found in find_all()}
        self.used: set[str] = set()
        self._account: Account | None = None
        self._binaries: dict[int, Binaries] = {}
        self._directory: Path | None = None
        self._lock: IO[str] | None = None
        self._shared: dict[int, Cluster] = {}

    def shared(self, major: int) -> Cluster:
        """The server that all tests of this major version share; not to be killed or reconfigured."""
        if major not in self._shared:
            cluster = self._cluster(f"shared-{major}", major, options=DISPOSABLE)
            cluster.init()
            self._shared[major] = cluster
        if not self._shared[major].is_running:
            self._shared[major].start()
        return self._shared[major]

    def private(self, major: int, *, tcp: bool = False, options: Mapping[str, str] | None = None) -> Cluster:
        """A server of one's own, running, with fsync on; `tcp` gives it a port of 127.0.0.1."""
        cluster = self._cluster(f"private-{uuid4().hex[:8]}", major, tcp=tcp, options=options)
        cluster.init()
        cluster.start()
        return cluster

    def copy(
        self, source: Cluster, *, tcp: bool = False, options: Mapping[str, str] | None = None
    ) -> Cluster:
        """A server, not started, on a copy of the files of `source`, which must not run.

        To bring a cold copy back in place of the files themselves, use `restore_files`.
        """
        cluster = self._cluster(f"copy-{uuid4().hex[:8]}", source.major, tcp=tcp, options=options)
        cluster.prepare_home()
        copy_files(source.data_dir, cluster.data_dir)
        return cluster

    def standby(
        self, primary: Cluster, *, tcp: bool = False, options: Mapping[str, str] | None = None
    ) -> Cluster:
        """A streaming standby of `primary`, running; promote it with `tool("psql", …)` and pg_promote()."""
        cluster = self._cluster(f"standby-{uuid4().hex[:8]}", primary.major, tcp=tcp, options=options)
        cluster.prepare_home()
        primary.tool("pg_basebackup", "-D", cluster.data_dir, "-R", "-X", "stream", "-c", "fast", "-N")
        cluster.start()
        return cluster

    def close(self) -> None:
        """End every server of this run and delete its files."""
        if self._directory is not None:
            clear_run(self._directory)
            self._directory = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _cluster(
        self, name: str, major: int, *, tcp: bool = False, options: Mapping[str, str] | None = None
    ) -> Cluster:
        if major not in self.installations:
            raise EmbeddedError(f"PostgreSQL {major} is not on this machine")
        directory = self._own_directory()
        binaries = self._binaries[major]
        self.used.add(binaries.version)
        return Cluster(
            binaries,
            directory / name,
            account=self._account,
            options={**OPTIONS, **(options or {})},
            port=free_port() if tcp else None,
        )

    def _own_directory(self) -> Path:
        if self._directory is None:
            self._account = server_account()
            runs = runs_directory(self._account)
            # A run that is just being made has no lock yet: nobody may look meanwhile.
            with runs.joinpath("gate").open("w") as gate:
                fcntl.flock(gate, fcntl.LOCK_EX)
                clear_dead_runs(runs)
                self._directory = Path(tempfile.mkdtemp(prefix="run-", dir=runs))
                self._directory.chmod(0o711)
                self._lock = self._directory.joinpath("lock").open("w")
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                # Programs cannot be run from a memory file system everywhere.
                area = runs_directory(self._account, in_memory=False)
                for major, found in self.installations.items():
                    self._binaries[major] = reachable_by(self._account, found, area)
        return self._directory


def runs_directory(account: Account | None, *, in_memory: bool = True) -> Path:
    """Where test runs keep their servers: a temporary directory that the servers' account can reach."""
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    if in_memory and (in_it := memory()) is not None:
        places.insert(0, in_it)
    for place in places:
        if place.is_dir() and can_enter(account, place):
            runs = place / f"mindvibe-tests-{os.geteuid()}"
            runs.mkdir(mode=0o711, exist_ok=True)
            runs.chmod(0o711)
            return runs
    raise EmbeddedError("the account that runs PostgreSQL can reach no temporary directory")


def memory() -> Path | None:
    """The memory file system when the whole suite has room in it and nobody asked for another place."""
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return None
    return MEMORY if shutil.disk_usage(MEMORY).free >= PLENTY else None


def clear_dead_runs(runs: Path) -> None:
    """End the servers of runs whose process is gone, and delete their files."""
    for run in runs.glob("run-*"):
        with contextlib.suppress(OSError), run.joinpath("lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            clear_run(run)


def clear_run(run: Path) -> None:
    """End the servers below `run` and delete everything there."""
    for data in run.glob("*/data*"):
        discard(Cluster(Binaries("0", Path("/")), data.parent))
    shutil.rmtree(run, ignore_errors=True)


def discard(cluster: Cluster) -> None:
    """End a server at once and delete its files, and what a kill leaves in the kernel."""
    cluster.kill()
    remove_shared_memory(cluster.data_dir / "postmaster.pid")
    shutil.rmtree(cluster.socket_dir, ignore_errors=True)
    shutil.rmtree(cluster.home, ignore_errors=True)


def remove_shared_memory(pid_file: Path) -> None:
    """Remove the System V segment by which a data directory is locked; only a next start would."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        segment = int(pid_file.read_text().splitlines()[6].split()[1])
        ctypes.CDLL(None).shmctl(segment, 0, None)


def copy_files(source: Path, target: Path) -> None:
    """Copy a directory with owners and modes."""
    subprocess.run(["cp", "-a", source, target], check=True)


def restore_files(copy: Cluster, target: Cluster) -> None:
    """Replace the files of `target`, which must not run, by those of `copy`: a volume restored."""
    shutil.rmtree(target.data_dir)
    copy_files(copy.data_dir, target.data_dir)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def migrate(url: str, *arguments: str) -> str:
    """Run alembic (`upgrade head` unless told) on a database, as a user would; return what it prints.

    Raises EmbeddedError with everything it said when it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *(arguments or ("upgrade", "head"))],
        check=False,
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise EmbeddedError(f"alembic failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


async def create_database(cluster: Cluster, *, migrated: bool = True) -> Database:
    """A fresh database, copied from the server's migrated template or empty."""
    connection = await asyncpg.connect(cluster.url())
    try:
        template = TEMPLATE if migrated else "template0"
        if migrated:
            await ensure_template(cluster, connection)
        name = f"test_{uuid4().hex[:12]}"
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    finally:
        await connection.close(timeout=CLOSE_TIMEOUT)
    return Database(cluster, name)


async def drop_database(database: Database) -> None:
    """Close a database's connections and drop it, unless its server is down."""
    await database.close()
    if not database.cluster.is_running:
        return
    connection = await asyncpg.connect(database.cluster.url())
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")
    finally:
        await connection.close(timeout=CLOSE_TIMEOUT)


async def ensure_template(cluster: Cluster, connection: asyncpg.Connection) -> None:
    """Make the migrated template unless the server has it; an unfinished one is made anew."""
    finished = await connection.fetchval("SELECT datistemplate FROM pg_database WHERE datname = $1", TEMPLATE)
    if finished:
        return
    if finished is False:
        await connection.execute(f"DROP DATABASE {TEMPLATE} WITH (FORCE)")
    await connection.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
    await asyncio.to_thread(migrate, cluster.url(TEMPLATE))
    await connection.execute(f"ALTER DATABASE {TEMPLATE} IS_TEMPLATE true ALLOW_CONNECTIONS false")

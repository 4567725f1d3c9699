"""The PostgreSQL of a run, as durable as in production, and its databases."""

import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from app.embedded import Cluster, find_all, server_account

SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB", "max_connections": "200"}


class Postgres:
    """One server; a measurement gets a fresh database, copied from a template, or one that is kept."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._templates: set[str] = set()
        self._kept: dict[str, str] = {}
        self._numbers = itertools.count()
        postmaster = cluster.data_dir.joinpath("postmaster.pid").read_text().split()[0]
        self._postmaster = psutil.Process(int(postmaster))

    @property
    def version(self) -> str:
        """Such as 18.6."""
        return self._cluster.binaries.version

    def migrated(self) -> str:
        """The address of a new database with our schema."""
        if "migrated" not in self._templates:
            self._create("migrated")
            subprocess.run(
                [sys.executable, "-m", "alembic", "upgrade", "head"],
                env={**os.environ, "DATABASE_URL": self._cluster.url("migrated")},
                check=True,
                stderr=subprocess.DEVNULL,
            )
            self._templates.add("migrated")
        return self._copy("migrated")

    def with_schema(self, sql: str) -> str:
        """The address of a new database with this schema."""
        dsn = self._copy("template1")
        query(dsn, sql)
        return dsn

    def kept(self, name: str, fill: Callable[[str], None]) -> str:
        """The address of a database with our schema that is filled once and stays for the whole run."""
        if name not in self._kept:
            self._kept[name] = self.migrated()
            fill(self._kept[name])
        return self._kept[name]

    def drop(self, dsn: str) -> None:
        """Drop a database, whoever is connected."""
        name = dsn.rpartition("?")[0].rpartition("/")[2]
        query(self._cluster.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")

    def calm(self) -> None:
        """Let no checkpoint of what was before fall into what is measured next."""
        query(self._cluster.url("postgres"), "CHECKPOINT")

    def cpu(self) -> float:
        """Seconds of CPU that the server and all its backends have used, those that ended included."""
        ended = self._postmaster.cpu_times()
        used = ended.user + ended.system + ended.children_user + ended.children_system
        for backend in self._postmaster.children():
            try:
                times = backend.cpu_times()
            except psutil.NoSuchProcess:
                continue
            used += times.user + times.system
        return float(used)

    def _copy(self, template: str) -> str:
        name = f"bench{next(self._numbers)}"
        self._create(name, template)
        return self._cluster.url(name)

    def _create(self, name: str, template: str = "template1") -> None:
        query(self._cluster.url("postgres"), f"CREATE DATABASE {name} TEMPLATE {template}")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start a server on a directory of its own; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mindvibe-bench-") as folder:
        Path(folder).chmod(0o755)
        cluster = Cluster(
            max(find_all(), key=lambda found: found.major),
            Path(folder) / "server",
            account=server_account(),
            options=SETTINGS,
        )
        cluster.init()
        cluster.start()
        try:
            yield Postgres(cluster)
        finally:
            cluster.stop()


def query(dsn: str, sql: str, *arguments: object) -> list[Any]:
    """Run one statement, or several without arguments; returns the rows of one."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(dsn)
        try:
            if arguments or sql.lstrip().upper().startswith(("SELECT", "WITH")):
                return list(await connection.fetch(sql, *arguments, timeout=600))
            await connection.execute(sql, timeout=600)
            return []
        finally:
            await connection.close()

    return asyncio.run(run())

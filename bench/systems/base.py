"""What every system under test looks like to a measure."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from bench.load.process import Readers, Writing, Wrote, readers, writers
from bench.load.writers import Load
from bench.postgres import Postgres


@dataclass(frozen=True)
class Running:
    """A system that is up, on a database of its own."""

    dsn: str
    """Where the host writes."""
    target: str = ""
    """Where clients connect: a port, or what their dialect takes for one."""
    dialect: str = "plain"
    publishing: str = "trigger"
    """How the host tells the system of a row: `trigger`, or after the commit, see `load.publishers`."""
    marks: bool = False
    """Whether `realtime_events` says what has been delivered."""
    processes: tuple[psutil.Process, ...] = field(default=())
    """What it consists of, the database aside."""

    def readers(self, dialect: str | None = None) -> AbstractContextManager[Readers]:
        """A process of clients, none connected yet."""
        return readers(dialect or self.dialect, self.target)

    def writing(self, load: Load) -> AbstractContextManager[Writing]:
        """The host under way; ended with this context."""
        return writers(self.dsn, self.publishing, load)

    def write(self, load: Load) -> Wrote:
        """Let the host write to the end of the load."""
        with self.writing(load) as writing:
            return writing.wait()

    def cpu(self) -> float:
        """Seconds of CPU used so far, the database aside."""
        times = [process.cpu_times() for process in self.processes]
        return float(sum(one.user + one.system for one in times))

    def memory(self) -> int:
        """Bytes resident, the database aside."""
        return sum(process.memory_info().rss for process in self.processes)


class System(Protocol):
    """One of those that are compared."""

    name: str
    title: str
    guarantees: str
    """What it promises and what not, in a sentence or two."""

    def missing(self) -> str | None:
        """Why it cannot run here; None when it can."""

    def versions(self) -> dict[str, str]:
        """Of the programs it consists of."""

    def running(self, server: Postgres) -> AbstractContextManager[Running]:
        """Start it on a new database; it is gone afterwards."""


class OfThisProject:
    """The part of a `System` that needs nothing to be looked for, and no program that others do not name."""

    def missing(self) -> str | None:
        """It is always there."""
        return None

    def versions(self) -> dict[str, str]:
        """Nothing of its own."""
        return {}


@contextmanager
def dropped_afterwards(server: Postgres, dsn: str) -> Iterator[None]:
    """Drop the database at the end, and wait for the disk before the next begins."""
    server.calm()
    try:
        yield
    finally:
        server.drop(dsn)

"""The database without any service: what the host's writes and our triggers cost by themselves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.postgres import Postgres, query
from bench.systems.base import OfThisProject, Running, dropped_afterwards

HOST_TABLES = ("moods", "chat_messages", "journal_entries")


@dataclass
class Database(OfThisProject):
    """A system of which only the database runs, changed by `prepare`, which gets its DSN."""

    name: str
    title: str
    guarantees: str
    prepare: Callable[[str], None] = lambda _: None
    dialect: str | None = None
    """How its clients listen, where there is anything to hear."""

    @contextmanager
    def running(self, server: Postgres) -> Iterator[Running]:
        """Make the database, and drop it afterwards."""
        dsn = server.migrated()
        with dropped_afterwards(server, dsn):
            self.prepare(dsn)
            yield Running(dsn) if self.dialect is None else Running(dsn, dsn, dialect=self.dialect)


def without_triggers(dsn: str) -> None:
    """Switch off the triggers of the host's tables."""
    for table in HOST_TABLES:
        query(dsn, f"ALTER TABLE {table} DISABLE TRIGGER ALL")


def without_bells(dsn: str) -> None:
    """Let our triggers store rows and NOTIFY nobody."""
    query(dsn, "SELECT setval('realtime_ring_until', 0)")


HOST_ONLY = Database(
    "host_only",
    "the host's tables without triggers",
    "Nothing is stored but the host's row, and nobody is told.",
    prepare=without_triggers,
)
FLOOR = Database(
    "floor",
    "our trigger and a bare LISTEN",
    "No service: one callback hears that something was written for a user. Nobody gets it.",
    dialect="listening",
)
OUTBOX_ONLY = Database(
    "outbox_only",
    "our trigger without a NOTIFY",
    "No service: every event is stored with the host's row, and nobody is told.",
    prepare=without_bells,
)

"""The host by itself: its tables without our triggers."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.postgres import Postgres, query
from bench.systems.base import Running, dropped_afterwards

HOST_TABLES = ("moods", "chat_messages", "journal_entries")


class HostOnly:
    """What the host's writes cost without anybody."""

    name = "host_only"
    title = "the host's tables without triggers"
    guarantees = "Nothing is stored but the host's row, and nobody is told."

    def missing(self) -> str | None:
        return None

    def versions(self) -> dict[str, str]:
        return {}

    @contextmanager
    def running(self, server: Postgres) -> Iterator[Running]:
        dsn = server.migrated()
        with dropped_afterwards(server, dsn):
            without_triggers(dsn)
            yield Running(dsn)


def without_triggers(dsn: str) -> None:
    """Switch off the triggers of the host's tables."""
    for table in HOST_TABLES:
        query(dsn, f"ALTER TABLE {table} DISABLE TRIGGER ALL")

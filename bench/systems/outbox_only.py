"""The limit of the writers: our trigger with its bells off, no service."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.postgres import Postgres, query
from bench.systems.base import Running, dropped_afterwards


class OutboxOnly:
    """Rows are stored, and that is all."""

    name = "outbox_only"
    title = "our trigger without a NOTIFY"
    guarantees = "No service: every event is stored with the host's row, and nobody is told."

    def missing(self) -> str | None:
        """It is always there."""
        return None

    def versions(self) -> dict[str, str]:
        """Nothing of its own."""
        return {}

    @contextmanager
    def running(self, server: Postgres) -> Iterator[Running]:
        """Only the database."""
        dsn = server.migrated()
        with dropped_afterwards(server, dsn):
            query(dsn, "SELECT setval('realtime_ring_until', 0)")
            yield Running(dsn)

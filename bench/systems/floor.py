"""What the database alone costs: our trigger and a bare LISTEN, no service."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.postgres import Postgres
from bench.systems.base import Running, dropped_afterwards


class Floor:
    """The least that any service on this trigger can take."""

    name = "floor"
    title = "our trigger and a bare LISTEN"
    guarantees = "No service: one callback hears that something was written for a user. Nobody gets it."

    def missing(self) -> str | None:
        """It is always there."""
        return None

    def versions(self) -> dict[str, str]:
        """Nothing of its own."""
        return {}

    @contextmanager
    def running(self, server: Postgres) -> Iterator[Running]:
        """Only the database; its clients listen to it."""
        dsn = server.migrated()
        with dropped_afterwards(server, dsn):
            yield Running(dsn, dsn, dialect="listening")

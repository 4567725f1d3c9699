"""This service."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from bench.postgres import Postgres
from bench.systems.base import OfThisProject, Running, dropped_afterwards
from bench.systems.served import served

FLAGS: tuple[str, ...] = ()
"""What the README recommends for uvicorn's command line."""


class Ours(OfThisProject):
    """Stored, delivered, confirmed, marked."""

    name = "ours"
    title = "this service"
    guarantees = (
        "At least once, in order per user: stored with the host's row in one transaction, kept until the"
        " client has confirmed it, replayed to who was away, marked as delivered."
    )

    def versions(self) -> dict[str, str]:
        """Of itself."""
        return {"mindvibe-realtime": version("mindvibe-realtime"), "flags": " ".join(FLAGS)}

    @contextmanager
    def running(self, server: Postgres) -> Iterator[Running]:
        """On a migrated database."""
        dsn = server.migrated()
        with dropped_afterwards(server, dsn), on(dsn) as up:
            yield up


@contextmanager
def on(dsn: str, **settings: str) -> Iterator[Running]:
    """The service on a database that is there already."""
    with served("app.main:app", dsn, *FLAGS, **settings) as (port, process):
        yield Running(dsn, str(port), marks=True, processes=(process,))

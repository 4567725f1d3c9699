"""What most tutorials build: `naive_server`."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from bench.postgres import Postgres
from bench.systems.base import OfThisProject, Running, dropped_afterwards
from bench.systems.naive_server import SCHEMA
from bench.systems.ours import FLAGS
from bench.systems.served import served


class Naive(OfThisProject):
    """One LISTEN whose payloads go to sets of WebSockets."""

    name = "naive"
    title = "LISTEN and sets of FastAPI WebSockets"
    guarantees = (
        "At most once: what is written while a client is away, or while the server is, is gone. Every write"
        " takes PostgreSQL's one lock on notifications until its commit is durable."
    )

    def versions(self) -> dict[str, str]:
        """Of what it is built with."""
        return {name: version(name) for name in ("fastapi", "uvicorn", "websockets")}

    @contextmanager
    def running(self, server: Postgres) -> Iterator[Running]:
        """With uvicorn's flags as ours has them."""
        dsn = server.with_schema(SCHEMA)
        application = "bench.systems.naive_server:app"
        with dropped_afterwards(server, dsn), served(application, dsn, *FLAGS) as (port, process):
            yield Running(dsn, str(port), processes=(process,))

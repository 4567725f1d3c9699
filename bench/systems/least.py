"""What a service costs at least that reads after a bell: `least_server`."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.postgres import Postgres
from bench.systems.base import OfThisProject, Running, dropped_afterwards
from bench.systems.ours import FLAGS
from bench.systems.served import served


class Least(OfThisProject):
    """Our trigger, one read, one send."""

    name = "least"
    title = "our trigger, a LISTEN, one read, one send"
    guarantees = (
        "What is written while a client is away is kept and never sent; what commits late is passed over;"
        " nothing is confirmed or marked. It says what a bell that is no data costs at least."
    )

    @contextmanager
    def running(self, server: Postgres) -> Iterator[Running]:
        """On a migrated database, whose bells ring since nobody says until when."""
        dsn = server.migrated()
        application = "bench.systems.least_server:app"
        with dropped_afterwards(server, dsn), served(application, dsn, *FLAGS) as (port, process):
            yield Running(dsn, str(port), processes=(process,))

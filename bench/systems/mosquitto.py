"""Mosquitto: MQTT over WebSocket, persistent sessions, QoS 1; the host publishes after its commit."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.postgres import Postgres
from bench.systems import programs
from bench.systems.base import Running, dropped_afterwards
from bench.systems.database import without_triggers
from bench.systems.served import free_port

CONFIGURATION = """
user root
allow_anonymous true
persistence true
persistence_location {folder}/
max_queued_messages 100000
set_tcp_nodelay true
listener {tcp} 127.0.0.1
listener {web} 127.0.0.1
protocol websockets
"""


class Mosquitto:
    """A broker beside the database."""

    name = "mosquitto"
    title = "Mosquitto, MQTT over WebSocket, persistent session, QoS 1"
    guarantees = (
        "At least once from the broker on: it queues for clients that are away, up to a number. Between the"
        " host's commit and its publish an event can be lost, and one can be published whose row rolls back;"
        " an acknowledged message is in memory until the next save (30 min by default), so a crash loses it."
        " No positions: a client cannot tell what it missed once the queue overflowed."
    )

    def missing(self) -> str | None:
        return None if programs.find("mosquitto") else "mosquitto is not on PATH (apt-get install mosquitto)"

    def versions(self) -> dict[str, str]:
        return {"mosquitto": programs.says(str(programs.find("mosquitto")), "-h")}

    @contextmanager
    def running(self, server: Postgres) -> Iterator[Running]:
        dsn = server.migrated()
        without_triggers(dsn)
        tcp, web = free_port(), free_port()
        with dropped_afterwards(server, dsn), tempfile.TemporaryDirectory(prefix="mindvibe-bench-") as folder:
            configuration = Path(folder) / "mosquitto.conf"
            configuration.write_text(CONFIGURATION.format(folder=folder, tcp=tcp, web=web), encoding="utf-8")
            command = [str(programs.find("mosquitto")), "-c", str(configuration)]
            with programs.running(command, web) as processes:
                yield Running(
                    dsn,
                    str(web),
                    dialect="mqtt",
                    publishing=f"mqtt:{tcp}",
                    processes=processes,
                )

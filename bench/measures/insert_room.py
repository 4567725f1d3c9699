"""What the host's insert into a room costs, without our triggers and with them."""

from bench.measures.base import Figures, Measure, Row
from bench.measures.room import open_room, post
from bench.postgres import Postgres
from bench.scale import Scale
from bench.systems import System

WARM_UP = 5
"""Messages."""


def run(server: Postgres, system: System, scale: Scale) -> Figures:
    """Nobody is connected."""
    with system.running(server) as up:
        open_room(up.dsn, scale.room_members)
        post(up.dsn, WARM_UP, 0.0)
        server.calm()  # else full-page images, as after any checkpoint, are counted with the first
        post(up.dsn, WARM_UP, 0.0)
        posted = post(up.dsn, scale.room_inserts, 0.05)
    return Figures(
        {
            "ms": posted.milliseconds,
            "WAL bytes": posted.wal_bytes,
            "us/member": posted.milliseconds * 1000 / scale.room_members,
            "members": scale.room_members,
        }
    )


MEASURE = Measure(
    "insert_room",
    "The host's insert of a chat message, room of 1,000 members",
    ("host_only", "outbox_only", "floor", "ours"),
    run,
    (
        Row(
            "the host's insert into a room of {room_members:,} members, service live, against no trigger",
            "ours.ms",
            "host_only.ms",
        ),
        Row("WAL of that insert, against no trigger", "ours.WAL bytes", "host_only.WAL bytes"),
    ),
)

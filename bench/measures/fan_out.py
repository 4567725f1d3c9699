"""One chat message to a room whose members are all connected."""

import time

from bench.measures.base import Figures, Measure, Row, distribution, milliseconds
from bench.measures.room import open_room, post
from bench.postgres import Postgres
from bench.scale import Scale
from bench.systems import System

WARM_UP = 3
"""Messages."""
INTERVAL = 1.0
"""Seconds from one message to the next: every copy of one is there before the next."""


def run(server: Postgres, system: System, scale: Scale) -> Figures:
    """The ages of all copies of all messages together."""
    with system.running(server) as up, up.readers() as readers:
        open_room(up.dsn, scale.room_members)
        readers.connect(scale.room_members)
        post(up.dsn, WARM_UP, INTERVAL)
        readers.take()
        cpu = up.cpu()
        posted = post(up.dsn, scale.room_messages, INTERVAL)
        readers.wait(scale.room_members * scale.room_messages)
        time.sleep(0.2)
        cpu = up.cpu() - cpu
        ages = readers.take().ages
    return Figures(
        {
            "p50 ms": milliseconds(ages, 0.5),
            "p99 ms": milliseconds(ages, 0.99),
            "last ms": milliseconds(ages, 1.0),
            "host's insert ms": posted.milliseconds,
            "members": scale.room_members,
            "arrived %": 100 * len(ages) / (scale.room_members * scale.room_messages),
            "service CPU us/copy": cpu / max(1, len(ages)) * 1e6,
        },
        {"distribution": distribution(ages)},
    )


MEASURE = Measure(
    "fan_out",
    "One chat message to a room whose members are all connected",
    ("ours",),
    run,
    (
        Row(
            "fan-out of one message to {room_members:,} connected members, p99 of the copies",
            "ours.p99 ms",
            None,
            250,
            100,
        ),
    ),
)

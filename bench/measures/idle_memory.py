"""What a connection costs in memory that has nothing to say."""

import time

from bench.measures.base import Figures, Measure, Row
from bench.postgres import Postgres
from bench.scale import Scale
from bench.systems import System

FIRST = 200
"""What the first connections make the process load is not theirs."""
STEPS = (0.1, 0.25, 0.5, 1.0)


def run(server: Postgres, system: System, scale: Scale) -> Figures:
    """Connect in steps; each is let settle."""
    points = []
    with system.running(server) as up, up.readers() as readers:
        readers.connect(FIRST)
        time.sleep(scale.settle_seconds)
        base, there, seconds = up.memory(), FIRST, 0.0
        for step in STEPS:
            more = max(1, FIRST + int(step * scale.idle_connections) - there)
            seconds += readers.connect(more, first=there).seconds
            there += more
            time.sleep(scale.settle_seconds)
            points.append((float(there), up.memory() / (1 << 20)))
        memory = up.memory()
        cpu = up.cpu()
        time.sleep(scale.settle_seconds)
        idle = (up.cpu() - cpu) / scale.settle_seconds
    return Figures(
        {
            "KiB/connection": (memory - base) / (there - FIRST) / 1024,
            "connections": there,
            "MiB in all": memory / (1 << 20),
            "connects/s": (there - FIRST) / seconds,
            "CPU while idle %": 100 * idle,
        },
        {"memory": points},
    )


MEASURE = Measure(
    "idle_memory",
    "Memory of idle connections",
    ("naive", "ours", "mosquitto", "nats", "socketio"),
    run,
    rounds=1,  # it repeats within a per cent
    rows=(
        Row("memory per connection, {idle_connections:,} idle ones", "ours.KiB/connection", None, 13, 8),
        Row(
            "memory per connection, {idle_connections:,} idle ones, against naive",
            "ours.KiB/connection",
            "naive.KiB/connection",
        ),
    ),
)

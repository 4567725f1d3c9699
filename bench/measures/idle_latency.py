"""Whether thousands who are only connected slow down those who get something."""

from bench.load.process import Readers
from bench.load.writers import Load
from bench.measures.base import Figures, Measure, Row, milliseconds
from bench.measures.latency import WRITERS
from bench.postgres import Postgres
from bench.scale import Scale
from bench.systems import Running, System


def run(server: Postgres, system: System, scale: Scale) -> Figures:
    """The same load before and after the idle ones have connected."""
    with system.running(server) as up, up.readers() as active, up.readers() as idle:
        active.connect(scale.latency_users)
        up.write(Load(scale.latency_rate, WRITERS, scale.warm_up_seconds, scale.latency_users))
        alone = _ages(up, active, scale)
        idle.connect(scale.idle_connections, first=scale.latency_users)
        crowded = _ages(up, active, scale)
    return Figures(
        {
            "alone p50 ms": milliseconds(alone, 0.5),
            "alone p99 ms": milliseconds(alone, 0.99),
            "with idle p50 ms": milliseconds(crowded, 0.5),
            "with idle p99 ms": milliseconds(crowded, 0.99),
            "idle connections": scale.idle_connections,
        }
    )


def _ages(up: Running, readers: Readers, scale: Scale) -> list[int]:
    readers.take()
    wrote = up.write(Load(scale.latency_rate, WRITERS, scale.latency_seconds, scale.latency_users))
    readers.wait(wrote.rows)
    return readers.take().ages


MEASURE = Measure(
    "idle_latency",
    "Latency beside idle connections, 300 rows/s, 200 users",
    ("naive", "ours"),
    run,
    (
        Row(
            "p99 with {idle_connections:,} idle connections, against {latency_users}",
            "ours.with idle p99 ms",
            "ours.alone p99 ms",
            2.0,
            1.2,
        ),
    ),
)

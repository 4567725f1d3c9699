"""How long after an insert began its frame is there, at a rate that leaves everybody time."""

from bench.load.writers import Load
from bench.measures.base import Figures, Measure, Row, distribution, milliseconds
from bench.postgres import Postgres
from bench.scale import Scale
from bench.systems import System

WRITERS = 4


def run(server: Postgres, system: System, scale: Scale) -> Figures:
    """Write at the rate, once to warm up and once to measure."""
    load = Load(scale.latency_rate, WRITERS, scale.latency_seconds, scale.latency_users)
    with system.running(server) as up, up.readers() as readers:
        readers.connect(1 if up.dialect == "listening" else scale.latency_users)
        up.write(Load(scale.latency_rate, WRITERS, scale.warm_up_seconds, scale.latency_users))
        readers.take()
        before = up.cpu()
        wrote = up.write(load)
        readers.wait(wrote.rows)
        used = up.cpu() - before
        ages = readers.take(wrote).ages
    return Figures(
        {
            "p50 ms": milliseconds(ages, 0.5),
            "p99 ms": milliseconds(ages, 0.99),
            "rows/s": wrote.rate,
            "arrived %": 100 * len(ages) / wrote.rows,
            "service CPU us/event": used / max(1, len(ages)) * 1e6,
        },
        {"distribution": distribution(ages)},
    )


MEASURE = Measure(
    "latency",
    "Insert begun to frame received, 300 rows/s, 200 users",
    ("floor", "naive", "least", "ours", "mosquitto", "nats", "socketio"),
    run,
    (
        Row(
            "p50, {latency_rate} rows/s, {latency_users} users, against the floor",
            "ours.p50 ms",
            "floor.p50 ms",
            2.0,
            1.3,
        ),
        Row(
            "p99, {latency_rate} rows/s, {latency_users} users, against the floor",
            "ours.p99 ms",
            "floor.p99 ms",
            1.5,
            1.2,
        ),
        Row("the same against the least that reads after a bell", "ours.p99 ms", "least.p99 ms"),
    ),
)

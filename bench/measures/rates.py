"""Latency against rate: from nearly nothing to more than the writers can do."""

from bench.load.writers import Load
from bench.measures.base import Figures, Measure, milliseconds
from bench.postgres import Postgres
from bench.scale import Scale
from bench.systems import System

WRITERS = 16


def run(server: Postgres, system: System, scale: Scale) -> Figures:
    """Each rate for some seconds, on one start of the system, up to what the writers cannot do any more."""
    median, tail = [], []
    with system.running(server) as up, up.readers() as readers:
        readers.connect(scale.latency_users)
        up.write(Load(100, WRITERS, scale.warm_up_seconds, scale.latency_users))
        for rate in scale.rates:
            readers.take()
            wrote = up.write(Load(rate, WRITERS, scale.rate_seconds, scale.latency_users))
            readers.wait(wrote.rows)
            ages = readers.take().ages
            median.append((wrote.rate, milliseconds(ages, 0.5)))
            tail.append((wrote.rate, milliseconds(ages, 0.99)))
            if wrote.rate < 0.9 * rate:
                break
    return Figures({"most rows/s": max(rate for rate, _ in tail)}, {"p50": median, "p99": tail})


MEASURE = Measure(
    "rates",
    "Latency against rate, 200 users",
    ("naive", "ours", "mosquitto", "nats", "socketio"),
    run,
    rounds=1,
    in_quick=False,
)

"""One device comes back to very many missed events, is cut again and again, and others go on."""

import time

from bench.load.process import LONGEST, Readers, run_alone
from bench.load.writers import Load
from bench.measures.base import Figures, Measure, Row, milliseconds
from bench.measures.watch import watched
from bench.postgres import Postgres, query
from bench.scale import Scale
from bench.systems import Running, System
from bench.systems.ours import on

RATE, WRITERS, OTHERS = 50, 1, 50
DEVICE = "bench"
CUT_AFTER = 5000
"""Messages, on the average."""
SEED = 1


def run(server: Postgres, _: System, scale: Scale) -> Figures:
    """What it misses is there before the service starts."""
    dsn = server.migrated()
    missed = _miss(dsn, scale.catch_up_missed)
    server.calm()
    with on(dsn, CONNECTIONS_PER_USER="1000") as up, up.readers() as others:
        others.connect(OTHERS)
        up.write(Load(RATE, WRITERS, scale.warm_up_seconds, OTHERS))
        calm = _ages(up, others, scale.latency_seconds)
        others.take()
        with up.writing(Load(RATE, WRITERS, LONGEST, OTHERS)), watched(up) as watch:
            done = run_alone("bench.load.catching_up", up.target, DEVICE, missed[-1], CUT_AFTER, SEED)
        meanwhile = others.take().ages
        time.sleep(1.0)
        left = query(dsn, "SELECT count(*) FROM realtime_events WHERE user_id = 'away' AND NOT delivered")
    server.drop(dsn)
    ids: list[int] = done["ids"]
    return Figures(
        {
            "missed": len(missed),
            "complete, in order %": 100.0 * (list(dict.fromkeys(ids)) == missed),
            "events/s": len(ids) / done["seconds"],
            "cuts": done["cuts"],
            "repeated": len(ids) - len(set(ids)),
            "unmarked at the end": left[0][0],
            "MiB before": watch.before / (1 << 20),
            "MiB more at most": (watch.highest - watch.before) / (1 << 20),
            "others calm p50 ms": milliseconds(calm, 0.5),
            "others calm p99 ms": milliseconds(calm, 0.99),
            "others meanwhile p50 ms": milliseconds(meanwhile, 0.5),
            "others meanwhile p99 ms": milliseconds(meanwhile, 0.99),
        }
    )


def _miss(dsn: str, count: int) -> list[int]:
    """Let a user with a device miss so many events; returns their ids."""
    query(dsn, "INSERT INTO users (id) VALUES ('away')")
    query(
        dsn,
        f"INSERT INTO users_devices (user_id, device_token, platform) VALUES ('away', '{DEVICE}', 'ios')",
    )
    for first in range(0, count, 1000):
        rows = min(1000, count - first)
        query(dsn, f"INSERT INTO moods (user_id, score) SELECT 'away', 1 FROM generate_series(1, {rows})")
    return [row[0] for row in query(dsn, "SELECT id FROM realtime_events ORDER BY id")]


def _ages(up: Running, readers: Readers, seconds: float) -> list[int]:
    readers.take()
    readers.wait(up.write(Load(RATE, WRITERS, seconds, OTHERS)).rows)
    return readers.take().ages


MEASURE = Measure(
    "catch_up",
    "One device catches up, cut every 5,000 messages, beside 50 rows/s to 50 others",
    ("ours",),
    run,
    (
        Row(
            "one device catches up on {catch_up_missed:,} events, in order and whole",
            "ours.complete, in order %",
            None,
            100,
            100,
            more_is_better=True,
        ),
    ),
)

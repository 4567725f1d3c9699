"""What readers that take one message a second cost the service, each with a long backlog."""

import time

from bench.load.process import run_alone
from bench.measures.base import Figures, Measure
from bench.measures.watch import watched
from bench.postgres import Postgres, query
from bench.scale import Scale
from bench.systems import System
from bench.systems.ours import on

RATE = 1.0
"""Messages per second that each takes."""
WAITING = 10_000
SIZE = 200
"""Bytes of a message's text."""


def run(server: Postgres, _: System, scale: Scale) -> Figures:
    """All of one user, for whom everything waits."""
    dsn = server.migrated()
    written = [
        row[0]
        for row in query(
            dsn,
            "SELECT realtime_publish('slow', 'story', jsonb_build_object('text', $1::text))"
            " FROM generate_series(1, $2::int)",
            "x" * SIZE,
            WAITING,
        )
    ]
    server.calm()
    readers = scale.slow_readers
    with on(dsn, CONNECTIONS_PER_USER=str(readers + 2)) as up, up.readers() as calm:
        calm.connect(10)
        time.sleep(scale.settle_seconds)
        with watched(up) as watch:
            done = run_alone("bench.load.slow_readers", up.target, readers, RATE, scale.slow_seconds)
    server.drop(dsn)
    read: list[list[int]] = done["ids"]
    return Figures(
        {
            "readers": readers,
            "MB waiting for each": WAITING * SIZE / 1e6,
            "KiB each at most": (watch.highest - watch.before) / readers / 1024,
            "MiB before": watch.before / (1 << 20),
            "messages read by each": sum(map(len, read)) / readers,
            "the oldest, in order %": 100 * sum(ids == written[: len(ids)] for ids in read) / readers,
            "closed by the server": done["closed"],
        }
    )


MEASURE = Measure(
    "slow_readers",
    "Readers of one message a second, 10,000 messages waiting for each",
    ("ours",),
    run,
    rounds=1,
)

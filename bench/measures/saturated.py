"""What goes through when the writers write as fast as they can, to the last row delivered and marked."""

import time

from bench.load.writers import Load
from bench.measures.base import Figures, Measure, Row, milliseconds
from bench.postgres import Postgres, query
from bench.scale import Scale
from bench.systems import Running, System

LONGEST_MARKING = 60.0
"""Seconds after the last frame."""
CONFIRMATION = 2.0
"""Seconds by which a mark may follow its frame while we are busy; more of them count against the rate."""


def run(server: Postgres, system: System, scale: Scale) -> Figures:
    """Without a service only the writers are measured."""
    load = Load(0, scale.saturated_writers, scale.saturated_seconds, scale.saturated_users)
    warm_up = Load(0, scale.saturated_writers, scale.warm_up_seconds, scale.saturated_users)
    with system.running(server) as up:
        if not up.processes:
            up.write(warm_up)
            server.calm()
            database = server.cpu()
            alone = up.write(load)
            used = (server.cpu() - database) / alone.rows
            return Figures({"writers rows/s": alone.rate, "database CPU us/event": used * 1e6})
        with up.readers() as readers:
            readers.connect(scale.saturated_users)
            readers.wait(up.write(warm_up).rows)
            readers.take()
            if up.marks:
                _wait_for_marks(up)
                since = query(up.dsn, "SELECT clock_timestamp()")[0][0]
            service, database = up.cpu(), server.cpu()
            wrote = up.write(load)
            readers.wait(wrote.rows)
            marked = _wait_for_marks(up) if up.marks else True
            service, database = up.cpu() - service, server.cpu() - database
            got = readers.take()
            delivering = got.seconds_since(wrote)
            marking = _seconds_of_marking(up, since) if up.marks else 0.0
    figures = {
        "rows/s": len(got.ages) / max(delivering, marking - CONFIRMATION),
        "writers rows/s": wrote.rate,
        "arrived %": 100 * len(got.ages) / wrote.rows,
        "p50 ms": milliseconds(got.ages, 0.5),
        "p99 ms": milliseconds(got.ages, 0.99),
        "service CPU us/event": service / len(got.ages) * 1e6,
        "database CPU us/event": database / len(got.ages) * 1e6,
    }
    if up.marks:
        figures |= {"all marked": float(marked), "last mark after last frame s": marking - delivering}
    return Figures(figures)


def _wait_for_marks(up: Running) -> bool:
    deadline = time.monotonic() + LONGEST_MARKING
    while time.monotonic() < deadline:
        if not query(up.dsn, "SELECT FROM realtime_events WHERE NOT delivered LIMIT 1"):
            return True
        time.sleep(0.1)
    return False


def _seconds_of_marking(up: Running, since: object) -> float:
    """From the first row written to the last mark."""
    found = query(
        up.dsn,
        "SELECT extract(epoch FROM max(delivered_at) - min(created_at))::float8 FROM realtime_events"
        " WHERE created_at > $1",
        since,
    )
    return float(found[0][0])


MEASURE = Measure(
    "saturated",
    "8 writers as fast as they can, 1,000 users",
    ("outbox_only", "naive", "ours", "mosquitto", "nats", "socketio"),
    run,
    (
        Row(
            "end-to-end rows/s, saturated, all delivered and marked, against naive",
            "ours.rows/s",
            "naive.rows/s",
            1.2,
            2.0,
            more_is_better=True,
        ),
        Row(
            "the writers' rate with the service live, against outbox only",
            "ours.writers rows/s",
            "outbox_only.writers rows/s",
            0.6,
            0.85,
            more_is_better=True,
        ),
        Row(
            "CPU of the service per delivered event, saturated, against naive",
            "ours.service CPU us/event",
            "naive.service CPU us/event",
            0.6,
            0.4,
        ),
    ),
)

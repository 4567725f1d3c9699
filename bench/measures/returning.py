"""Thousands come back at once, each to events that it missed; others go on getting theirs."""

import time

from bench.load.process import Readers
from bench.load.writers import Load
from bench.measures.base import Figures, Measure, Row, milliseconds
from bench.postgres import Postgres, query
from bench.scale import Scale
from bench.systems import Running, System

RATE = 100
OTHERS = 200
FIRST_OTHER = 1_000_000
LONGEST = 120.0
"""Seconds."""
TRIES = 10
"""Who is refused comes again, as clients do."""


def run(server: Postgres, system: System, scale: Scale) -> Figures:
    """Everybody was there before, and resumes where it was."""
    clients, missed = scale.returning_clients, scale.returning_missed
    with system.running(server) as up, up.readers() as others, up.readers("resuming") as returning:
        returning.connect(clients)
        time.sleep(1.0)
        returning.drop()
        time.sleep(2.0)
        query(
            up.dsn,
            f"INSERT INTO moods (user_id, score) SELECT 'p' || client, 1"
            f" FROM generate_series(1, {missed}), generate_series(0, {clients - 1}) AS client",
        )
        others.connect(OTHERS, first=FIRST_OTHER)
        up.write(Load(RATE, 2, scale.warm_up_seconds + 2, OTHERS, FIRST_OTHER))
        calm = _calm(up, others, scale)

        with up.writing(Load(RATE, 2, LONGEST, OTHERS, FIRST_OTHER)):
            while not others.got():
                time.sleep(0.05)
            others.take()
            cpu, began = up.cpu(), time.monotonic()
            connected = returning.connect(clients, at_once=clients, tries=TRIES)
            while returning.complete(missed) < clients and time.monotonic() - began < LONGEST / 2:
                time.sleep(0.05)
            took, cpu = time.monotonic() - began, up.cpu() - cpu
            storm = others.take().ages
        time.sleep(0.5)
        complete, got = returning.complete(missed), returning.got()
    return Figures(
        {
            "clients": clients,
            "missed each": missed,
            "complete %": 100 * complete / clients,
            "repeated": got - clients * missed,
            "refused attempts": connected.refused,
            "all connected s": connected.seconds,
            "all complete s": took,
            "service CPU ms/client": cpu / clients * 1000,
            "others calm p50 ms": milliseconds(calm, 0.5),
            "others calm p99 ms": milliseconds(calm, 0.99),
            "others meanwhile p50 ms": milliseconds(storm, 0.5),
            "others meanwhile p99 ms": milliseconds(storm, 0.99),
        }
    )


def _calm(up: Running, others: Readers, scale: Scale) -> list[int]:
    others.take()
    others.wait(up.write(Load(RATE, 2, scale.latency_seconds, OTHERS, FIRST_OTHER)).rows)
    return others.take().ages


MEASURE = Measure(
    "returning",
    "Clients that return at once, beside 100 rows/s to 200 others",
    ("ours",),
    run,
    (
        Row(
            "{returning_clients:,} clients return at once, {returning_missed} missed events each: complete",
            "ours.complete %",
            None,
            100,
            100,
            more_is_better=True,
        ),
        Row(
            "live p99 of others meanwhile, against calm",
            "ours.others meanwhile p99 ms",
            "ours.others calm p99 ms",
            10,
            3,
        ),
    ),
)

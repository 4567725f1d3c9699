"""What an event costs where millions of delivered ones are kept, and where there is none."""

from bench.load.writers import Load
from bench.measures.base import Figures, Measure, Row, milliseconds
from bench.postgres import Postgres, query
from bench.scale import Scale
from bench.systems import System
from bench.systems.ours import on

WRITERS = 8
RATE = 500
USERS = 200
KEPT_USERS = 10_000
CHUNK = 500_000


def run(server: Postgres, _: System, scale: Scale) -> Figures:
    """The same load on an empty database and on a full one, which is made once and kept."""
    empty, full = server.migrated(), server.kept("retained", lambda dsn: _fill(dsn, scale.retained_rows))
    figures = {"retained rows": float(scale.retained_rows)}
    for name, dsn in (("empty", empty), ("full", full)):
        figures |= {f"{name} {figure}": value for figure, value in _cost(server, dsn, scale).items()}
    server.drop(empty)
    return Figures(figures)


def _cost(server: Postgres, dsn: str, scale: Scale) -> dict[str, float]:
    server.calm()
    with on(dsn) as up, up.readers() as readers:
        readers.connect(USERS)
        readers.wait(up.write(Load(RATE, WRITERS, scale.warm_up_seconds, USERS)).rows)
        readers.take()
        service, database = up.cpu(), server.cpu()
        wrote = up.write(Load(RATE, WRITERS, scale.latency_seconds, USERS))
        readers.wait(wrote.rows)
        service, database = up.cpu() - service, server.cpu() - database
        ages = readers.take().ages
    return {
        "CPU us/event": (service + database) / wrote.rows * 1e6,
        "service CPU us/event": service / wrote.rows * 1e6,
        "database CPU us/event": database / wrote.rows * 1e6,
        "p50 ms": milliseconds(ages, 0.5),
        "p99 ms": milliseconds(ages, 0.99),
        "arrived %": 100 * len(ages) / wrote.rows,
    }


def _fill(dsn: str, rows: int) -> None:
    """Delivered events of the last six days, over many users in turn."""
    for first in range(0, rows, CHUNK):
        query(
            dsn,
            f"""
            INSERT INTO realtime_events
                (event_type, user_id, payload, delivered, created_at, delivered_at)
            SELECT 'mood_update', 'p' || n % {KEPT_USERS},
                jsonb_build_object('event_type', 'mood_logged', 'user_id', 'p' || n % {KEPT_USERS},
                                   'mood_score', n % 10, 'timestamp', at),
                true, at, at + interval '0.1 s'
            FROM (SELECT n, now() - (1 - n / {rows}.0) * interval '6 days' AS at
                  FROM generate_series({first}, {min(first + CHUNK, rows) - 1}) AS n) AS old
            """,
        )
    query(dsn, "VACUUM (ANALYZE, FREEZE) realtime_events")


MEASURE = Measure(
    "retained",
    "Cost of an event beside retained ones, 500 rows/s, service and database",
    ("ours",),
    run,
    (
        Row(
            "cost per event with {retained_rows:,} retained rows, against an empty table",
            "ours.full CPU us/event",
            "ours.empty CPU us/event",
            1.3,
            1.1,
        ),
    ),
)

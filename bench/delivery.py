"""How fast a committed row reaches its client, beside what the database alone costs and a naive server.

    python -m bench.delivery            three rounds, about four minutes
    python -m bench.delivery --rounds 1

Everything runs on one machine in one run, on a PostgreSQL of its own with fsync on: compare the columns of
one table with each other, and nothing with figures of other machines.

    floor     our trigger and a bare LISTEN callback, no service: what the database alone costs
    outbox    our trigger with bells off, no service: the limit of the writers
    naive     a trigger that NOTIFYs the event, one LISTEN, sets of FastAPI WebSockets; stores nothing
    ours      this service: stored, delivered, confirmed, marked
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from app.embedded import Cluster, find_all, server_account
from bench.single_load import WRAP
from bench.systems import naive_server

CALM = {"rate": 300, "writers": 4, "seconds": 8, "users": 200}
SATURATED = {"rate": 0, "writers": 8, "seconds": 8, "users": 1000}


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every figure of every round here")
    options = parser.parse_args()
    figures: dict[str, list[float]] = defaultdict(list)
    with cluster() as server:
        for number in range(options.rounds):
            for name, value in one_round(server, f"round{number}").items():
                figures[name].append(value)
                print(f"  round {number + 1}  {name:32} {value:10.2f}", flush=True)
    print("\nmedians")
    for name, values in figures.items():
        print(f"  {name:40} {statistics.median(values):10.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def one_round(server: Cluster, name: str) -> dict[str, float]:
    """Every measurement once, in turn."""
    figures: dict[str, float] = {}
    dsn = migrated(server, f"{name}_floor")
    with process("listen", dsn) as listener:
        begun = write(dsn, CALM)["begun"]
        figures |= percentiles("floor", ages_of(begun, finish(listener)["rung"]))
    dsn = migrated(server, f"{name}_outbox")
    asyncio.run(execute(dsn, "SELECT setval('realtime_ring_until', 0)"))
    figures["outbox rows/s"] = rate(write(dsn, SATURATED))
    dsn = prepared(server, f"{name}_naive", naive_server.SCHEMA)
    figures |= served("naive", "bench.systems.naive_server:app", dsn)
    dsn = migrated(server, f"{name}_ours")
    figures |= served("ours", "app.main:app", dsn)
    return figures


def served(name: str, application: str, dsn: str) -> dict[str, float]:
    """Latency in calm, and rate, writers' rate and CPU when saturated, of one server."""
    figures: dict[str, float] = {}
    with server_process(application, dsn) as (port, service):
        with process("read", str(port), str(CALM["users"])) as readers:
            write(dsn, CALM)
            time.sleep(2)
            figures |= percentiles(name, finish(readers)["ages"])
        with process("read", str(port), str(SATURATED["users"])) as readers:
            before = sum(service.cpu_times()[:2])
            wrote = write(dsn, SATURATED)
            time.sleep(6)
            used = sum(service.cpu_times()[:2]) - before
            got = finish(readers)
        figures[f"{name} rows/s end to end"] = len(got["ages"]) / got["seconds"]
        figures[f"{name} arrived of written %"] = 100 * len(got["ages"]) / wrote["rows"]
        figures[f"{name} writers rows/s"] = rate(wrote)
        figures[f"{name} service CPU us/event"] = used / len(got["ages"]) * 1e6
    return figures


def percentiles(name: str, ages: list[int]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(ages)
    return {
        f"{name} p50 ms": ordered[len(ordered) // 2] / 1000,
        f"{name} p99 ms": ordered[len(ordered) * 99 // 100] / 1000,
    }


def ages_of(begun: list[tuple[int, str]], rung: list[tuple[int, str]]) -> list[int]:
    """Pair each bell with the oldest insert of its user that had none."""
    waiting: defaultdict[str, deque[int]] = defaultdict(deque)
    for score, user in begun:
        waiting[user].append(score)
    return [(at - waiting[user].popleft()) % WRAP for at, user in rung if waiting[user]]


def rate(wrote: dict[str, Any]) -> float:
    """Rows per second."""
    return float(wrote["rows"] / wrote["seconds"])


def write(dsn: str, load: dict[str, int]) -> dict[str, Any]:
    """Write to the end of the load; returns what the writers say."""
    arguments = [dsn, *(str(load[name]) for name in ("rate", "writers", "seconds", "users"))]
    done = subprocess.run(
        [sys.executable, "-m", "bench.single_load", "write", *arguments],
        capture_output=True,
        check=True,
        text=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A load process that is ready."""
    running = subprocess.Popen(
        [sys.executable, "-m", "bench.single_load", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def finish(running: subprocess.Popen[str]) -> dict[str, Any]:
    """End a load process; returns what it says."""
    answer: dict[str, Any] = json.loads(running.communicate("", timeout=60)[0])
    return answer


@contextmanager
def server_process(application: str, dsn: str) -> Iterator[tuple[int, psutil.Process]]:
    """Start an application under uvicorn, as a user would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--log-level", "warning"],
        env={**os.environ, "DATABASE_URL": dsn},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_it_answers(port)
        yield port, psutil.Process(running.pid)
    finally:
        running.terminate()
        running.wait()


def wait_until_it_answers(port: int) -> None:
    """Any answer will do."""
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/docs").read()
        except OSError:
            time.sleep(0.1)
        else:
            time.sleep(1)
            return
    raise TimeoutError("the server does not answer")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL of this run's own, as durable as in production."""
    with tempfile.TemporaryDirectory(prefix="mindvibe-bench-") as folder:
        Path(folder).chmod(0o755)
        server = Cluster(
            max(find_all(), key=lambda found: found.major),
            Path(folder) / "server",
            account=server_account(),
            options={"shared_buffers": "256MB", "max_wal_size": "4GB"},
        )
        server.init()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def prepared(server: Cluster, name: str, sql: str) -> str:
    """A new database; returns its address."""
    asyncio.run(execute(server.url("postgres"), f"CREATE DATABASE {name}"))
    asyncio.run(execute(server.url(name), sql))
    return server.url(name)


def migrated(server: Cluster, name: str) -> str:
    """A new database with our schema; returns its address."""
    dsn = prepared(server, name, "SELECT 1")
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        env={**os.environ, "DATABASE_URL": dsn},
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return dsn


async def execute(dsn: str, sql: str) -> None:
    """Run one statement."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(sql)
    await connection.close()


if __name__ == "__main__":
    main()

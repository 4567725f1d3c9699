"""What 100,000 missed events cost: the client that catches up, the server's memory, and everybody else.

    python -m bench.catch_up                         three rounds
    python -m bench.catch_up --missed 20000 --rounds 1

Everything runs on one machine, on a PostgreSQL of its own. A client of a device acknowledges every 50
messages, is cut off without a close at random places, and comes back, until it has everything. Other users
get moods meanwhile, at the same rate as before it came; how late each is told for both. `cuts` end on the
average every `--cut-after` messages.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections import defaultdict
from typing import Any

import asyncpg
import psutil
from websockets.asyncio.client import connect

from bench.delivery import cluster, migrated, server_process
from bench.single_load import Reader, now

OTHERS = 50
RATE = 50.0
"""Moods per second for the others, together."""
CALM = 8.0
"""Seconds of measuring before."""
ACK_EVERY = 50
DEVICE = "bench"


async def write(database: asyncpg.Connection, seconds: float, until: asyncio.Event) -> None:
    """Log moods for the others until the time or the event has come."""
    began = time.monotonic()
    insert = await database.prepare("INSERT INTO moods (user_id, score, at) VALUES ($1, $2, now())")
    count = 0
    while time.monotonic() - began < seconds and not until.is_set():
        await insert.fetch(f"p{count % OTHERS}", now())
        count += 1
        await asyncio.sleep(max(0.0, began + count / RATE - time.monotonic()))


async def catch_up(port: int, cut_after: int, last: int, rng: random.Random) -> tuple[list[int], int]:
    """Come and go until the last event is acknowledged; returns the ids as they came, and the cuts."""
    ids: list[int] = []
    cuts = 0
    url = f"ws://127.0.0.1:{port}/realtime/ws?user_id=away&device_token={DEVICE}&ack=1"
    while not ids or ids[-1] != last:
        left = rng.randint(1, 2 * cut_after)
        connection = await connect(url, proxy=None, compression=None, ping_interval=None, max_size=None)
        async for frame in connection:
            message = json.loads(frame)
            if "id" not in message:
                continue
            ids.append(message["id"])
            left -= 1
            if message["seq"] % ACK_EVERY == 0 or ids[-1] == last:
                await connection.send(json.dumps({"type": "ack", "seq": message["seq"]}))
            if not left or ids[-1] == last:
                break
        if ids[-1] == last:
            await connection.close()
        else:
            cuts += 1
            connection.transport.abort()
    return ids, cuts


async def watch(service: psutil.Process, highest: list[int]) -> None:
    """Note the most that the server holds."""
    while True:
        highest[0] = max(highest[0], service.memory_info().rss)
        await asyncio.sleep(0.1)


async def measure(
    dsn: str, port: int, service: psutil.Process, options: argparse.Namespace, seed: int
) -> dict[str, float]:
    """One round."""
    database = await asyncpg.connect(dsn)
    loop = asyncio.get_running_loop()
    ages: list[int] = []
    for number in range(OTHERS):
        _, reader = await loop.create_connection(lambda n=number: Reader(f"p{n}", ages), "127.0.0.1", port)
        await reader.connected
    await write(database, 2.0, asyncio.Event())
    ages.clear()
    before = service.memory_info().rss
    await write(database, CALM, asyncio.Event())
    await asyncio.sleep(0.5)
    calm, ages[:] = sorted(ages), []

    highest = [before]
    watching = asyncio.create_task(watch(service, highest))
    caught_up = asyncio.Event()
    writing = asyncio.create_task(write(database, 3600.0, caught_up))
    last = await database_last(dsn)
    began = time.monotonic()
    ids, cuts = await catch_up(port, options.cut_after, last, random.Random(seed))
    took = time.monotonic() - began
    caught_up.set()
    await writing
    await asyncio.sleep(0.5)
    watching.cancel()
    during = sorted(ages)
    after = service.memory_info().rss

    once = list(dict.fromkeys(ids))
    wanted = [
        row[0]
        for row in await database.fetch("SELECT id FROM realtime_events WHERE user_id = 'away' ORDER BY id")
    ]
    assert once == wanted, "not complete, or not in order"
    left = await database.fetchval(
        "SELECT count(*) FROM realtime_events WHERE user_id = 'away' AND NOT delivered"
    )
    await database.close()
    return {
        "missed": len(wanted),
        "cuts": cuts,
        "repeated": len(ids) - len(once),
        "seconds": took,
        "events/s": len(ids) / took,
        "unmarked at the end": left,
        "MiB before": before / (1 << 20),
        "MiB at most": highest[0] / (1 << 20),
        "MiB after": after / (1 << 20),
        **percentiles("others before", calm),
        **percentiles("others during", during),
    }


async def database_last(dsn: str) -> int:
    """The last event that the client missed."""
    database = await asyncpg.connect(dsn)
    last: int = await database.fetchval("SELECT max(id) FROM realtime_events WHERE user_id = 'away'")
    await database.close()
    return last


async def miss(dsn: str, count: int) -> None:
    """Let a user with a device miss so many events."""
    database = await asyncpg.connect(dsn)
    await database.execute("INSERT INTO users (id) VALUES ('away')")
    await database.execute(
        "INSERT INTO users_devices (user_id, device_token, platform) VALUES ('away', $1, 'ios')", DEVICE
    )
    for begin in range(0, count, 1000):
        await database.execute(
            "INSERT INTO moods (user_id, score) SELECT 'away', n FROM generate_series(1, $1::int) AS n",
            min(1000, count - begin),
        )
    await database.close()


def percentiles(name: str, ages: list[int]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    return {
        f"{name} p50 ms": ages[len(ages) // 2] / 1000,
        f"{name} p99 ms": ages[len(ages) * 99 // 100] / 1000,
    }


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--missed", type=int, default=100_000)
    parser.add_argument("--cut-after", type=int, default=5000)
    options = parser.parse_args()
    os.environ["CONNECTIONS_PER_USER"] = "100"
    figures: dict[str, list[float]] = defaultdict(list)
    with cluster() as server:
        for number in range(options.rounds):
            dsn = migrated(server, f"round{number}")
            asyncio.run(miss(dsn, options.missed))
            with server_process("app.main:app", dsn) as (port, service):
                one: dict[str, Any] = asyncio.run(measure(dsn, port, service, options, number))
            for name, value in one.items():
                figures[name].append(value)
            print(f"  round {number + 1}: " + ", ".join(f"{k} {v:.1f}" for k, v in one.items()), flush=True)
    print(f"\n{'':28} {'median':>10} {'least':>10} {'most':>10}")
    for name, values in figures.items():
        print(f"{name:28} {statistics.median(values):10.1f} {min(values):10.1f} {max(values):10.1f}")


if __name__ == "__main__":
    main()

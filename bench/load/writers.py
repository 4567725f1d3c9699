"""The host in one process: `python -m bench.load.writers OPTIONS`, JSON of `Load`; prints one line of JSON.

Each row is a transaction of its own; its score is the microsecond at which its insert began.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from bench.load import mqtt, nats
from bench.load.publishers import Publish
from bench.stamps import now


@dataclass(frozen=True)
class Load:
    """What to write. `rate` is rows per second of all writers together; 0: as fast as they can."""

    rate: float
    writers: int
    seconds: float
    users: int
    first: int = 0
    """The number of the first user."""


@asynccontextmanager
async def publisher(how: str) -> AsyncIterator[Publish | None]:
    """A connection to publish on, `mqtt:PORT` or `nats:PORT`; None for `trigger`, which needs none."""
    match how.split(":"):
        case ["mqtt", port]:
            async with mqtt.publishing(int(port)) as publish:
                yield publish
        case ["nats", port]:
            async with nats.publishing(int(port)) as publish:
                yield publish
        case _:
            yield None


async def write(dsn: str, publishing: str, load: Load) -> dict[str, object]:
    """Log moods; where the system has no trigger, publish each after its commit."""
    connections = [await asyncpg.connect(dsn) for _ in range(load.writers)]
    begun: list[tuple[str, int]] = []
    rows = 0
    start, began = time.monotonic(), now()

    async def run(connection: asyncpg.Connection) -> None:
        nonlocal rows
        insert = await connection.prepare("INSERT INTO moods (user_id, score, at) VALUES ($1, $2, now())")
        async with publisher(publishing) as publish:
            while time.monotonic() - start < load.seconds:
                due = start + rows / load.rate if load.rate else 0.0
                rows += 1
                user = f"p{load.first + random.randrange(load.users)}"
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                score = now()
                begun.append((user, score))
                await insert.fetch(user, score)
                if publish is not None:
                    await publish(user, score)

    await asyncio.gather(*map(run, connections))
    took = time.monotonic() - start
    for connection in connections:
        await connection.close()
    return {"began": began, "rows": rows, "seconds": took, "begun": begun if load.rate else []}


def main() -> None:
    """Do what the command line says."""
    dsn, publishing, options = sys.argv[1:]
    print(json.dumps(asyncio.run(write(dsn, publishing, Load(**json.loads(options))))))


if __name__ == "__main__":
    main()

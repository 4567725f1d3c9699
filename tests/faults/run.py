"""The long run: `python -m tests.faults.run --minutes 30 --seed 1`; chapter after chapter, each on new ground.

Prints the seed, what was done, and what was found; ends with 1 when anything was.
"""

import argparse
import asyncio
import pickle
import random
import sys
import time
from collections import Counter
from pathlib import Path

from tests.faults import chapter
from tests.faults.chapter import Plan
from tests.faults.client_faults import CLIENT_FAULTS
from tests.faults.database_faults import DATABASE_FAULTS
from tests.faults.network_faults import NETWORK_FAULTS
from tests.faults.process_faults import PROCESS_FAULTS
from tests.support.postgres import Servers, create_database, discard

EVERYTHING = (*PROCESS_FAULTS, *DATABASE_FAULTS, *NETWORK_FAULTS, *CLIENT_FAULTS)
CHAPTER = 90.0
"""Seconds of faults in each."""


async def play(plan: Plan, servers: Servers) -> chapter.Report:
    """Run one chapter on a server of its own."""
    cluster = servers.private(max(servers.installations), options={"max_connections": "60"})
    try:
        return await chapter.run(plan, await create_database(cluster))
    finally:
        discard(cluster)


def main() -> int:
    """Run until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--chapter", type=float, default=CHAPTER, help="seconds of faults in each chapter")
    parser.add_argument("--save", type=Path, help="a folder for the histories of chapters with findings")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    servers, until = Servers(), time.monotonic() + asked.minutes * 60
    found, counts, number = 0, Counter[str](), 0
    try:
        while time.monotonic() < until:
            number += 1
            plan = Plan(seed * 1000 + number, asked.chapter, [kind() for kind in EVERYTHING])
            report = asyncio.run(play(plan, servers))
            print(f"chapter {number}, seed {plan.seed}\n{report}", flush=True)
            if report.findings and asked.save is not None:
                asked.save.joinpath(f"{plan.seed}.pickle").write_bytes(pickle.dumps(report.history))
            found += len(report.findings)
            counts += report.faults
    finally:
        servers.close()
    print(f"seed {seed}: {number} chapters, {counts.total()} faults, {found} findings")
    for name, times in sorted(counts.items()):
        print(f"  {times:4} x {name}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""The long run: `python -m tests.faults.run --minutes 30 --seed 1`; chapter after chapter, each on new ground.

A seed gives the same grounds, load and faults again, though not to the millisecond; `--first 4` begins with the fourth
chapter of a run.

Prints the seed, what was done, and what was found; ends with 1 when anything was.
"""

import argparse
import pickle
import random
import sys
import time
from collections import Counter
from pathlib import Path

from tests.faults.scenery import play, sceneries
from tests.support.postgres import Servers

CHAPTER = 75.0
"""Seconds of faults in each."""


def main() -> int:
    """Run until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--chapter", type=float, default=CHAPTER, help="seconds of faults in each chapter")
    parser.add_argument("--save", type=Path, help="a folder for the histories of chapters with findings")
    parser.add_argument("--only", choices=[name for name, _ in sceneries()], help="chapters of one kind")
    parser.add_argument("--first", type=int, default=1, help="the chapter to begin with")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    grounds = [one for one in sceneries() if asked.only in (None, one[0])]
    servers, until = Servers(), time.monotonic() + asked.minutes * 60
    found, counts, number = 0, Counter[str](), asked.first - 1
    try:
        while time.monotonic() < until:
            name, scenery = grounds[number % len(grounds)]
            number += 1
            chapter = seed * 1000 + number
            report = play(scenery, chapter, asked.chapter, servers)
            print(f"chapter {number}, {name}, seed {chapter}\n{report}", flush=True)
            if report.findings and asked.save is not None:
                asked.save.mkdir(parents=True, exist_ok=True)
                asked.save.joinpath(f"{chapter}.pickle").write_bytes(pickle.dumps(report.history))
            found += len(report.findings)
            counts += report.faults
    finally:
        servers.close()
    print(f"seed {seed}: {number - asked.first + 1} chapters, {counts.total()} faults, {found} findings")
    for name, times in sorted(counts.items()):
        print(f"  {times:4} x {name}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""What a well-behaved client notices of an attack on others: insert to frame, before it and during it.

    python -m bench.under_attack                     three rounds of every attack, about six minutes
    python -m bench.under_attack --rounds 1 --only pings,half-open

Everything runs on one machine in one run: the attacker takes CPU of its own, though at the lowest priority,
so compare the columns of one table with each other only. Attacks come from the machine itself, whose address
no limit counts: what holds here are the limits per connection, and the bounds on what one may cost.
"""

import argparse
import resource
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from bench.attackers import FLOODS
from bench.load.process import Readers
from bench.load.writers import Load
from bench.measures.base import milliseconds
from bench.postgres import Postgres, postgres
from bench.systems.base import Running
from bench.systems.ours import on

USERS = 50
RATE = 100
WARM_UP = Load(RATE, 2, 1.0, USERS)
CALM = Load(RATE, 2, 4.0, USERS)
ATTACKED = Load(RATE, 2, 6.0, USERS)
CONNECTIONS = {"half-open": 10_000, "pings within the limit": 20, "slow writers": 200, "slow readers": 200}
OTHERWISE = 10
KINDS = ("half-open", *FLOODS)

Measured = dict[str, float]


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="some attacks, with commas between", default=",".join(KINDS))
    options = parser.parse_args()
    kinds = options.only.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(KINDS)}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures: dict[str, list[Measured]] = defaultdict(list)
    with postgres() as server:
        for number in range(options.rounds):
            for kind in kinds:
                figures[kind].append(one_round(server, kind))
                print(f"  round {number + 1}  {kind}", file=sys.stderr, flush=True)
    print(table(figures))


def one_round(server: Postgres, kind: str) -> Measured:
    """A service of its own: calm, then attacked."""
    dsn = server.migrated()
    with on(dsn, CONNECTIONS_PER_USER="100") as up, up.readers() as clients:
        clients.connect(USERS)
        up.write(WARM_UP)
        clients.take()
        memory = up.processes[0].memory_info().rss
        before, _ = ages(up, clients, CALM)
        with attack(kind, up.target):
            during, rows = ages(up, clients, ATTACKED)
            grown = up.processes[0].memory_info().rss - memory
    server.drop(dsn)
    return {
        "p50 before": milliseconds(before, 0.5),
        "p50": milliseconds(during, 0.5),
        "p99 before": milliseconds(before, 0.99),
        "p99": milliseconds(during, 0.99),
        "arrived %": 100 * len(during) / rows,
        "MiB grown": grown / (1 << 20),
    }


def ages(up: Running, clients: Readers, load: Load) -> tuple[list[int], int]:
    """Write, and see how old each message is when it comes, in microseconds; and how many were written."""
    wrote = up.write(load)
    clients.wait(wrote.rows)
    return clients.take().ages, wrote.rows


@contextmanager
def attack(kind: str, port: str) -> Iterator[None]:
    """An attacker at work; what it does takes from when this begins."""
    command = [sys.executable, "-m", "bench.attackers", kind, port, str(CONNECTIONS.get(kind, OTHERWISE))]
    attacker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        attacker.kill()
        attacker.wait()


def table(figures: dict[str, list[Measured]]) -> str:
    """Medians of the rounds, milliseconds unless the column says otherwise."""
    columns = list(next(iter(figures.values()))[0])
    lines = [f"{'attack':<26}" + "".join(f"{column:>13}" for column in columns)]
    for kind, rounds in figures.items():
        medians = (statistics.median(one[column] for one in rounds) for column in columns)
        lines.append(f"{kind:<26}" + "".join(f"{value:>13.1f}" for value in medians))
    return "\n".join(lines)


if __name__ == "__main__":
    main()

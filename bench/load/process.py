"""The measuring side of the load: start its processes, give orders, collect what they say."""

import json
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from bench.load.writers import Load
from bench.stamps import age

QUIET = 3.0
"""Seconds without a new message after which no more are waited for."""
LONGEST = 300.0
"""Seconds that anything is waited for at most."""


@dataclass(frozen=True)
class Wrote:
    """What the writers did."""

    began: int
    """The stamp of their start."""
    rows: int
    seconds: float
    begun: list[tuple[str, int]]
    """User and stamp of every row, where they wrote at a rate."""

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds


@dataclass(frozen=True)
class Got:
    """What the readers got: ages in microseconds, and the stamp of the last message."""

    ages: list[int]
    last: int

    def seconds_since(self, wrote: Wrote) -> float:
        """From the writers' start to the last message."""
        return age(wrote.began, self.last) / 1e6


class LoadError(Exception):
    """The load could not be put on the system."""


@dataclass(frozen=True)
class Connected:
    """How long it took until all clients were, and how many attempts were refused on the way."""

    seconds: float
    refused: int


class Readers:
    """One process of clients."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def connect(self, count: int, *, first: int = 0, at_once: int = 100, tries: int = 1) -> Connected:
        """Connect users p`first` …, each after a random pause again. Raises LoadError when any gave up."""
        answer = self._ask(do="connect", first=first, count=count, at_once=at_once, tries=tries)
        if answer["failed"]:
            raise LoadError(f"{answer['failed']} of {count} clients were refused: {answer['because']}")
        return Connected(answer["seconds"], answer["refused"])

    def drop(self) -> None:
        """Let all clients vanish."""
        self._ask(do="drop")

    def got(self) -> int:
        """How many messages have come since the last `take`."""
        return int(self._ask(do="count", wanted=1)["got"])

    def complete(self, wanted: int) -> int:
        """How many clients have got so many messages since they connected."""
        return int(self._ask(do="count", wanted=wanted)["complete"])

    def wait(self, rows: int) -> None:
        """Wait until so many have come since the last `take`, or no more come."""
        got, since = self.got(), time.monotonic()
        while got < rows and time.monotonic() - since < QUIET:
            time.sleep(0.05)
            if (more := self.got()) > got:
                got, since = more, time.monotonic()

    def take(self, wrote: Wrote | None = None) -> Got:
        """What has come since it was last asked; bells are paired with what was written."""
        answer = self._ask(do="take")
        ages = paired(wrote.begun, answer["rung"]) if wrote is not None and answer["rung"] else answer["ages"]
        return Got(ages, answer["last"])

    def _ask(self, **order: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise LoadError("the readers have ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def readers(dialect: str, target: str) -> Iterator[Readers]:
    """A process of clients, none connected yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.load.readers", dialect, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Readers(process)
    finally:
        process.kill()
        process.communicate()


class Writing:
    """Writers under way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def wait(self) -> Wrote:
        """Wait for their end. Raises LoadError when they failed."""
        said = self._process.communicate(timeout=LONGEST)[0]
        if not said:
            raise LoadError("the writers have ended")
        return Wrote(**json.loads(said))


@contextmanager
def writers(dsn: str, publishing: str, load: Load) -> Iterator[Writing]:
    """A process of writers; ended at once where it was not waited for."""
    arguments = [dsn, publishing, json.dumps(asdict(load))]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.load.writers", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        yield Writing(process)
    finally:
        process.kill()
        process.communicate()


def run_alone(module: str, *arguments: object) -> dict[str, Any]:
    """Run a load of another kind to its end; returns what it says. Raises SubprocessError."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LONGEST,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def paired(begun: list[tuple[str, int]], rung: list[tuple[str, int]]) -> list[int]:
    """The age of each bell, taken for that of the oldest insert of its user that had none."""
    waiting: defaultdict[str, deque[int]] = defaultdict(deque)
    for user, stamp in begun:
        waiting[user].append(stamp)
    return [age(waiting[user].popleft(), at) for user, at in rung if waiting[user]]

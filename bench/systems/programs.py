"""Programs of the peers: found beside this Python or on PATH, run on a folder and a port of their own."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.systems.served import LONGEST_START, SETTLED, end


def find(name: str) -> str | None:
    """Where a program is; packages of Python put theirs beside it."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", ""), "/usr/sbin"]))


def says(*command: str) -> str:
    """The first line that a program prints about itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


@contextmanager
def running(
    command: list[str], port: int, *, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[tuple[psutil.Process, ...]]:
    """Run a server, wait until it listens on the port; terminated afterwards. Raises TimeoutError.

    What a package of Python calls a program may be a script that runs it: the processes are what it started.
    """
    log = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **(environment or {})}, stdout=log, stderr=log
    )
    try:
        deadline = time.monotonic() + LONGEST_START
        while not _listens(port):
            if time.monotonic() > deadline or process.poll() is not None:
                raise TimeoutError(f"{command[0]} does not listen")
            time.sleep(0.1)
        time.sleep(SETTLED)
        children = psutil.Process(process.pid).children(recursive=True)
        yield tuple(children or [psutil.Process(process.pid)])
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.terminate()
        end(process)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

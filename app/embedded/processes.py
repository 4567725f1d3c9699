"""The processes of one server, told by the name that the server puts into their titles.

The file `postmaster.pid` is not enough: after a kill it names a process that may be another's by now,
and it says nothing of backends that outlive their postmaster.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.embedded.errors import EmbeddedError

_PROC = Path("/proc")
_POLL = 0.005  # seconds


def find(cluster_name: str, uid: int) -> list[int]:
    """Process ids of the server called `cluster_name` that belong to `uid`, its postmaster first."""
    option = f"cluster_name={cluster_name}"
    title = f"postgres: {cluster_name}: "
    postmasters: list[int] = []
    children: list[int] = []
    for pid, owner, command in _all_processes():
        if owner != uid:
            continue
        if command.startswith(title):
            children.append(pid)
        elif option in command and Path(command.split(" -D ", 1)[0]).name == "postgres":
            postmasters.append(pid)
    return [*sorted(postmasters), *children]


def kill(cluster_name: str, uid: int, *, timeout: float = 30.0) -> None:
    """End every process of the server with SIGKILL and return when the last one is gone.

    Raises EmbeddedError when one is still there after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    waiting: set[int] = set()
    while True:
        found = find(cluster_name, uid)
        waiting.update(found)
        # The postmaster goes first, so that it neither restarts the others nor starts new ones.
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        waiting = {pid for pid in waiting if _is_alive(pid)}
        if not found and not waiting:
            return
        if time.monotonic() > deadline:
            raise EmbeddedError(f"PostgreSQL processes {sorted(waiting)} do not end; end them by hand")
        time.sleep(_POLL)


def _all_processes() -> Iterator[tuple[int, int, str]]:
    if not _PROC.is_dir():
        for line in _ps("-axww", "-o", "pid=,uid=,command="):
            pid, uid, command = line.split(maxsplit=2)
            yield int(pid), int(uid), command
        return
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            # Processes end while we look.
            with suppress(OSError):
                arguments = entry.joinpath("cmdline").read_bytes().split(b"\0")
                command = b" ".join(arguments).strip().decode(errors="replace")
                yield int(entry.name), entry.stat().st_uid, command


def _is_alive(pid: int) -> bool:
    # A process that nobody has waited for yet is a zombie: all it held is released.
    if not _PROC.is_dir():
        return any(not state.startswith("Z") for state in _ps("-o", "state=", "-p", str(pid)))
    try:
        status = _PROC.joinpath(str(pid), "stat").read_text(errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def _ps(*arguments: str) -> list[str]:
    # Where there is no /proc. Its exit status only says whether there was anything to list.
    command = ["ps", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")  # noqa: S603
    return done.stdout.splitlines()

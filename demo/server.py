"""The demo's child processes: the migrations, and the real server under uvicorn.

Both run in sessions of their own, so that a Ctrl-C at the terminal reaches the demo only, which then
stops them in order. Between the start of a child and the block that ends it no signal raises; see `stops`.
"""

import errno
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.options import ROOT, DemoError, child_environment, command_line
from demo.stops import POLL, Stops

START_TIMEOUT = 30.0
"""Seconds until the server has to be ready."""
STOP_TIMEOUT = 25.0
"""Seconds until a child has to be gone; the server's own drain takes at most 11."""
LAST_LINES = 5


def require_free(folder: Path, port: int) -> None:
    """Raise DemoError when the port cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            another = command_line("demo", port=port + 1, folder=folder)
            raise DemoError(
                f"port {port} {reason}: stop what listens there, or choose another port with `{another}`"
            ) from error


def is_up(port: int) -> bool:
    """Whether a service answers on the port and takes traffic."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/realtime/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def require_up(port: int) -> None:
    """Raise DemoError when the demo does not run."""
    if not is_up(port):
        raise DemoError(
            f"no service answers on port {port}: start the demo with `make demo` and leave it open"
        )


def migrate(folder: Path, stops: Stops) -> None:
    """Run `alembic upgrade head` on the embedded database of `folder`; raises DemoError and Stopped."""
    log = folder / "alembic.log"
    with _child(folder, log, "alembic", "upgrade", "head") as process:
        while not _has_ended(process, stops):
            time.sleep(POLL)
    if process.returncode != 0:
        raise DemoError(f"`alembic upgrade head` failed: {_last_lines(log)}")


class Server:
    """The real server as a child process; `log` is what it has to say."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self._port = port
        self._log = log

    def wait_until_up(self, stops: Stops) -> None:
        """Return when it takes traffic; raises DemoError when it does not, and Stopped."""
        deadline = time.monotonic() + START_TIMEOUT
        while not is_up(self._port):
            if _has_ended(self._process, stops):
                raise DemoError(f"the server did not start: {_last_lines(self._log)}")
            if time.monotonic() > deadline:
                raise DemoError(f"the server is not ready after {START_TIMEOUT:.0f} s: see {self._log}")
            time.sleep(POLL)

    def wait(self, stops: Stops) -> None:
        """Wait until a signal comes, and raise Stopped; DemoError when the server ends by itself."""
        while not _has_ended(self._process, stops):
            time.sleep(POLL)
        raise DemoError(f"the server ended with status {self._process.returncode}: see {self._log}")


@contextmanager
def running(folder: Path, port: int) -> Iterator[Server]:
    """Run the server while the block runs."""
    log = folder / "realtime.log"
    with _child(folder, log, "uvicorn", "app.main:app", "--port", str(port)) as process:
        yield Server(process, port, log)


@contextmanager
def _child(folder: Path, log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have `python -m COMMAND` as a child while the block runs, and end it after that, gently at first."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=child_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _has_ended(process: subprocess.Popen[bytes], stops: Stops) -> bool:
    """Whether the child has ended by itself; raises Stopped.

    A Ctrl-C in the instant before a child gets its own session ends it, too: that is no failure.
    """
    ended = process.poll() is not None
    stops.check()
    return ended


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " | ".join(line.strip() for line in lines[-LAST_LINES:])

"""The demo's child processes: the migrations, and the real server under uvicorn.

Both run in sessions of their own, so that a Ctrl-C at the terminal reaches the demo only, which then
stops them in order.
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

START_TIMEOUT = 30.0
"""Seconds until the server has to be ready."""
STOP_TIMEOUT = 25.0
"""Seconds until it has to be gone; its own drain takes at most 11."""
POLL = 0.05
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


def migrate(folder: Path) -> None:
    """Run `alembic upgrade head` on the embedded database of `folder`; raises DemoError."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        check=False,
        cwd=ROOT,
        env=child_environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    if done.returncode != 0:
        raise DemoError(f"`alembic upgrade head` failed: {_last_lines(done.stderr)}")


class Server:
    """The real server as a child process; `log` is what it has to say."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self._port = port
        self._log = log

    def wait_until_up(self) -> None:
        """Return when it takes traffic; raises DemoError when it does not."""
        deadline = time.monotonic() + START_TIMEOUT
        while not is_up(self._port):
            if self._process.poll() is not None:
                said = _last_lines(self._log.read_text(errors="replace"))
                raise DemoError(f"the server did not start: {said}")
            if time.monotonic() > deadline:
                raise DemoError(f"the server is not ready after {START_TIMEOUT:.0f} s: see {self._log}")
            time.sleep(POLL)

    def wait(self) -> None:
        """Wait for as long as it runs; raises DemoError when it ends by itself."""
        status = self._process.wait()
        raise DemoError(f"the server ended with status {status}: see {self._log}")

    def stop(self) -> None:
        """End it, gently at first."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running(folder: Path, port: int) -> Iterator[Server]:
    """Run the server while the block runs."""
    log = folder / "realtime.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
            [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)],
            cwd=ROOT,
            env=child_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(process, port, log)
    try:
        yield server
    finally:
        server.stop()


def _last_lines(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-LAST_LINES:])

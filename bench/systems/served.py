"""Start an ASGI application under uvicorn, as a user would."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

LONGEST_START = 60.0
"""Seconds."""
SETTLED = 1.0
"""Seconds after the first answer."""


@contextmanager
def served(application: str, dsn: str, *flags: str, **settings: str) -> Iterator[tuple[int, psutil.Process]]:
    """Its port and its process; terminated afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--log-level", "warning"]
    with tempfile.TemporaryFile() as log:
        environment = {**os.environ, "DATABASE_URL": dsn, **settings}
        running = subprocess.Popen([*command, *flags], env=environment, stderr=log)
        try:
            wait_until_it_answers(port, running)
            yield port, psutil.Process(running.pid)
        except Exception:
            log.seek(0)
            print(log.read()[-2000:].decode(errors="replace"), file=sys.stderr)
            raise
        finally:
            end(running)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until_it_answers(port: int, running: subprocess.Popen[bytes], path: str = "/docs") -> None:
    """Any answer will do."""
    deadline = time.monotonic() + LONGEST_START
    while time.monotonic() < deadline and running.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
        except OSError:
            time.sleep(0.1)
        else:
            time.sleep(SETTLED)
            return
    raise TimeoutError("the server does not answer")


def end(running: subprocess.Popen[bytes]) -> None:
    """Terminate; kill what does not go."""
    running.terminate()
    try:
        running.wait(20)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()

"""README.md as tests read it, and a shell and a server to try it with."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.postgres import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PORT = "8002"
PLACEHOLDER = "postgresql://user:password@localhost:5432/dbname"
PATIENCE = 60  # seconds, for a machine with much else to do

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    text: str

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]


def blocks() -> list[Block]:
    """Every fenced block, in order; one within a list loses its indentation."""
    return [Block(found[2], textwrap.dedent(found[3])) for found in _FENCE.finditer(README)]


def block(language: str, beginning: str, number: int = 0) -> Block:
    """The one that begins so; of several, that of this number."""
    found = [one for one in blocks() if one.language == language and one.text.startswith(beginning)]
    assert len(found) > number, f"README has no {language} block that begins with {beginning!r}"
    return found[number]


def table(first_column: str) -> list[list[str]]:
    """The cells of the table with this first heading, without its heading."""
    lines = README.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def environment(database_url: str | None, *, psql: Path | None = None) -> dict[str, str]:
    """The variables of somebody who has activated the virtual environment."""
    # A make that runs the tests would pass its own flags on to those that they run.
    inherited = {"DATABASE_URL", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    kept = {name: value for name, value in os.environ.items() if name not in inherited}
    programs = [str(Path(sys.executable).parent), *([str(psql.parent)] if psql else []), os.environ["PATH"]]
    url = {} if database_url is None else {"DATABASE_URL": database_url}
    return {**kept, **url, "PATH": os.pathsep.join(programs), "PYTHONUNBUFFERED": "1"}


def shell(text: str, variables: dict[str, str], *, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a block as a shell does that stops at the first failure."""
    return subprocess.run(
        [bash(), "-e", "-c", text],
        check=False,
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@contextlib.contextmanager
def shell_until_up(
    text: str, variables: dict[str, str], port: int, *, cwd: Path = ROOT
) -> Iterator[subprocess.Popen[str]]:
    """Run a block that ends with a server, and Ctrl-C it when the `with` block is done."""
    process = subprocess.Popen(
        [bash(), "-e", "-c", text],
        cwd=cwd,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while get(port, "/realtime/ready")[0] != http.HTTPStatus.OK:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the server is not ready"
            time.sleep(0.05)
        yield process
        os.killpg(process.pid, signal.SIGINT)
        process.wait(PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def health(port: int) -> dict[str, Any]:
    """What the server says of itself once its listener has connected too."""
    deadline = time.monotonic() + PATIENCE
    while True:
        said = json.loads(get(port, "/realtime/health")[1])
        if (said["status"] == "healthy" and said["listener"]["listening"]) or time.monotonic() > deadline:
            return said
        time.sleep(0.05)


def get(port: int, path: str) -> tuple[int, bytes]:
    """Ask the server; status 0 where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read what it prints up to the line with this text; a process that does not print it is killed."""
    assert process.stdout is not None
    said = ""
    killer = threading.Timer(PATIENCE, process.kill)
    killer.start()
    try:
        while text not in said:
            line = process.stdout.readline()
            assert line, f"it ended after {said!r}"
            said += line
    finally:
        killer.cancel()
    return said


def bash() -> str:
    found = shutil.which("bash")
    assert found is not None
    return found

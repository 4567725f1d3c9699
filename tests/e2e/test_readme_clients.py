"""The README's client examples, as they are printed there; only the port is another one."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.readme import PATIENCE, PORT, block, environment, read_until, shell_until_up
from tests.support import host
from tests.support.postgres import Database, free_port

USER = "user123"
SERVE = "uvicorn app.main:app --port 8002"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(database: Database, port: int) -> Iterator[subprocess.Popen[str]]:
    """The server on a fresh database."""
    with shell_until_up(SERVE.replace(PORT, str(port)), environment(database.url), port) as process:
        yield process


def run(command: list[str | Path]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def node() -> list[str]:
    """Node with a browser's WebSocket, with the flag that older ones need for it; else skip the test."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("there is no Node.js to run the JavaScript example with")
    for flags in ([], ["--experimental-websocket"]):
        command = [program, *flags]
        asked = subprocess.run(
            [*command, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"],
            check=False,
            capture_output=True,
        )
        if asked.returncode == 0:
            return command
    pytest.skip("this Node.js has no WebSocket: the JavaScript example needs 20.10 or newer")


async def test_the_python_example_prints_what_happens(
    database: Database, server: subprocess.Popen[str], port: int
) -> None:
    """It connects, prints events, and its delivery is confirmed without a line of code for it."""
    example = block("python", "import asyncio").text.replace(PORT, str(port))
    with run([sys.executable, "-u", "-c", example]) as client:
        read_until(client, "Received: ")
        main_api = await database.connect()
        await host.log_mood(main_api, USER, 7)
        said = read_until(client, "Event: mood_update")
        await host.write_entry(main_api, USER)
        read_until(client, "Event: journal_update")

        client.kill()

    assert "'mood_score': 7" in said


async def test_the_python_example_ends_when_the_server_says_goodbye(database: Database, port: int) -> None:
    """It is closed with 1001, which its loop takes as the end."""
    example = block("python", "import asyncio").text.replace(PORT, str(port))
    with shell_until_up(SERVE.replace(PORT, str(port)), environment(database.url), port):
        client = run([sys.executable, "-u", "-c", example])
        read_until(client, "Received: ")

    assert client.wait(PATIENCE) == 0
    assert "reconnect" in client.communicate()[0]


async def test_the_javascript_example_handles_every_case(
    database: Database, server: subprocess.Popen[str], port: int, tmp_path: Path
) -> None:
    """It runs under Node with a browser's WebSocket; only its heartbeat comes a hundred times as often."""
    example = tmp_path / "example.mjs"
    example.write_text(block("javascript", "const userId").text.replace(PORT, str(port)))
    hasten = tmp_path / "hasten.cjs"
    hasten.write_text(
        "const slow = setInterval; globalThis.setInterval = (what, ms) => slow(what, ms / 100);"
    )
    main_api = await database.connect()
    with run([*node(), "--no-warnings", "--require", hasten, example]) as client:
        read_until(client, "WebSocket connected")
        read_until(client, "Connected as user123")
        await host.log_mood(main_api, USER, 7)
        read_until(client, "New mood:")
        await host.post_message(main_api, USER)
        read_until(client, "New message:")
        read_until(client, "Server alive")

        server.terminate()
        read_until(client, "WebSocket disconnected")
        client.kill()

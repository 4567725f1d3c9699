"""`make demo`, as a user meets it: it shows what it says, stays up, and leaves nothing behind."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.embedded import Binaries, Cluster, processes, server_account
from demo.server import migrate, running
from demo.stops import SIGNALS, Stopped, Stops
from demo.terminal import Terminal
from tests.support.postgres import ROOT, discard, free_port, runs_directory

PATIENCE = 120  # seconds, for a machine with much else to do
ENDED = "Stopped"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for the demo's database, not made yet; its server is ended after the test."""
    outer = Path(tempfile.mkdtemp(prefix="demo-", dir=runs_directory(server_account())))
    outer.chmod(0o711)
    yield outer / "demo"
    for data in outer.rglob("postgres/data"):
        discard(Cluster(Binaries("0", Path("/")), data.parent))
    shutil.rmtree(outer)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def start(folder: Path, port: int) -> Iterator[Start]:
    """Start the demo in a process group of its own, as a terminal does; killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "demo", "--port", str(port), "--folder", str(folder), *arguments]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        for each in family(process):
            each.kill()
        process.communicate()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The process and everything it has started, save the database, which is its own master."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def alive(ones: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that has ended and that nobody has waited for holds nothing."""
    return [one for one in ones if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def database_processes(folder: Path) -> list[int]:
    """The processes of the demo's PostgreSQL."""
    cluster = Cluster(Binaries("0", Path("/")), folder.resolve() / "postgres")
    if not cluster.data_dir.exists():
        return []
    return processes.find(cluster.cluster_name, cluster.data_dir.stat().st_uid)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read what it prints up to the text, also in an unfinished line; one that does not print it is killed."""
    assert process.stdout is not None
    said = ""
    killer = threading.Timer(PATIENCE, process.kill)
    killer.start()
    try:
        while text not in said:
            letter = process.stdout.read(1)
            assert letter, f"it ended after {said!r}: {process.stderr.read() if process.stderr else ''}"
            said += letter
    finally:
        killer.cancel()
    return said


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[int, str, str]:
    """Signal the whole group, as Ctrl-C does; return status, output and complaints."""
    os.killpg(process.pid, number)
    said, complaint = process.communicate(timeout=PATIENCE)
    return process.returncode, said, complaint


def test_stays_up_for_the_commands_it_prints_and_ctrl_c_ends_everything(
    start: Start, folder: Path, port: int
) -> None:
    """The printed lines work when pasted; after Ctrl-C no process of it is left."""
    demo = start("--quick")
    said = read_until(demo, "demo.write")
    assert demo.stdout is not None
    said += demo.stdout.readline()
    watch_command, write_command = (line.strip() for line in said.splitlines()[-2:])

    with subprocess.Popen(
        watch_command, shell=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watch:
        read_until(watch, '"type":"connected"')
        written = subprocess.run(
            write_command, shell=True, cwd=ROOT, check=True, capture_output=True, text=True, timeout=PATIENCE
        )
        score = re.search(r"VALUES \('ada', (\d+)\)", written.stdout)
        assert score is not None
        read_until(watch, f'"mood_score": {score[1]}')

        everything = [*family(demo), *map(psutil.Process, database_processes(folder))]
        assert len(everything) > 3
        status, rest, complaint = end(demo)

        assert watch.wait(PATIENCE) == 1
        assert watch.stderr is not None
        assert "the server closed the connection (1001)" in watch.stderr.read()
    assert (status, complaint) == (0, "")
    assert ENDED in rest
    assert alive(everything) == []
    assert not listens(port)


def test_tells_what_it_promises_and_in_plain_text(start: Start) -> None:
    """Three live events with their latency, three missed ones, and no escape codes in a pipe."""
    demo = start("--quick", "--leave")

    said, complaint = demo.communicate(timeout=PATIENCE)

    assert (demo.returncode, complaint) == (0, "")
    latencies = re.findall(r"-> (\w+): (\w+) +([\d.]+) ms", said)
    assert [(user, kind) for user, kind, _ in latencies] == [
        ("ada", "mood_update"),
        ("ada", "chat_message"),
        ("ben", "chat_message"),
        ("ada", "journal_update"),
        ("ada", "mood_update"),
        ("ada", "chat_message"),
        ("ada", "journal_update"),
    ]
    assert "Exactly the 3 that were missed, in order." in said
    assert said.isascii()
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) <= 100


@pytest.mark.parametrize("stage", ["PostgreSQL starts", "alembic", "uvicorn", "3. ada's"])
def test_can_be_interrupted_at_any_stage(start: Start, folder: Path, port: int, stage: str) -> None:
    """A signal while something starts leaves no process either, and no traceback."""
    demo = start("--quick")
    read_until(demo, stage)
    started = family(demo)

    status, said, complaint = end(demo)

    assert (status, complaint) == (0, "")
    assert ENDED in said
    assert alive(started) == []
    assert database_processes(folder) == []
    assert not listens(port)


def test_more_signals_while_it_ends_change_nothing(start: Start, folder: Path, port: int) -> None:
    """Who presses Ctrl-C again and again cannot keep it from taking everything down."""
    demo = start("--quick")
    read_until(demo, "demo.write")
    started = family(demo)
    deadline = time.monotonic() + PATIENCE

    while demo.poll() is None and time.monotonic() < deadline:
        demo.send_signal(signal.SIGINT)
        demo.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            demo.wait(0.01)
    said, complaint = demo.communicate(timeout=PATIENCE)

    assert (demo.returncode, complaint) == (0, "")
    assert ENDED in said
    assert alive(started) == []
    assert database_processes(folder) == []
    assert not listens(port)


@pytest.fixture
def stops() -> Iterator[Stops]:
    """Signals are noted in this process; as they were before after the test."""
    before = {each: signal.getsignal(each) for each in SIGNALS}
    yield Stops()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The children started, each followed by a signal before its starter can know it; killed after the test."""
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    yield started
    for each in started:
        each.kill()
        each.wait()


def test_a_signal_right_after_a_migration_was_started_loses_no_process(
    folder: Path, stops: Stops, children: list[subprocess.Popen[bytes]]
) -> None:
    """The migration is ended before the demo goes on to end the database under it."""
    folder.mkdir()

    with pytest.raises(Stopped):
        migrate(folder, stops)

    assert [each.returncode for each in children] == [-signal.SIGTERM]


def test_a_signal_right_after_the_server_was_started_loses_no_process(
    folder: Path, port: int, stops: Stops, children: list[subprocess.Popen[bytes]]
) -> None:
    """The server is ended before the demo goes on to end the database under it."""
    folder.mkdir()

    with pytest.raises(Stopped), running(folder, port) as server:
        server.wait_until_up(stops)

    assert len(children) == 1
    assert children[0].returncode is not None


def test_a_closed_terminal_ends_it_too(start: Start, folder: Path, port: int) -> None:
    """A hang-up has the effect of Ctrl-C."""
    demo = start("--quick")
    read_until(demo, "demo.write")

    status, _, complaint = end(demo, signal.SIGHUP)

    assert (status, complaint) == (0, "")
    assert database_processes(folder) == []
    assert not listens(port)


def test_a_port_in_use_is_told_in_one_line(start: Start, folder: Path, port: int) -> None:
    """Nothing is started, and the line says what to do."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()

        said, complaint = start().communicate(timeout=PATIENCE)

    assert said == ""
    assert complaint.count("\n") == 1
    assert complaint.startswith(f"demo: port {port} is in use: ")
    assert not folder.exists()


def test_takes_nothing_of_the_developer_and_nothing_of_an_earlier_run(start: Start, tmp_path: Path) -> None:
    """Variables set for the service do not reach the demo's; old events do not show up in it."""
    theirs = tmp_path / "theirs"
    environment = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/theirs",
        "EMBEDDED_FOLDER": str(theirs),
        "ENVIRONMENT": "production",
        "BELLS": "nonsense",
    }
    interrupted = start("--quick")
    read_until(interrupted, "4. ada's")
    end(interrupted)
    demo = start("--quick", "--leave", environment=environment)

    said, complaint = demo.communicate(timeout=PATIENCE)

    assert (demo.returncode, complaint) == (0, "")
    assert said.count(" ms   ") == 7
    assert not theirs.exists()


@pytest.mark.parametrize("module", ["demo.write", "demo.watch"])
def test_without_a_demo_the_commands_say_so(module: str, port: int, folder: Path) -> None:
    """One line that names the command to start it with; no database is started for it."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--port", str(port), "--folder", folder],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "make demo" in done.stderr
    assert not folder.exists()


def test_a_server_that_does_not_start_is_told_with_its_own_words(
    start: Start, folder: Path, port: int
) -> None:
    """The last lines of its log come along, and the database is stopped."""
    demo = start("--quick")
    read_until(demo, "alembic")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()

        _, complaint = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 1
    assert "the server did not start: " in complaint
    assert "address already in use" in complaint
    assert database_processes(folder) == []


def test_a_terminal_with_colours_gets_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Headings are bold there, and only there."""
    Terminal(colours=True).heading("One")
    Terminal(colours=False).heading("Two")

    said = capsys.readouterr().out

    assert said == "\n\x1b[1mOne\x1b[0m\n\nTwo\n"

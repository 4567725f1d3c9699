"""The order of things: database, migrations, server, story, and all of it back again."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from app.embedded import EmbeddedError, LocalServer
from demo.host import Host
from demo.options import DemoError, command_line, parser
from demo.server import migrate, require_free, running
from demo.story import ADA, Story
from demo.terminal import Terminal

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(terminal: Terminal, folder: Path, port: int, *, quick: bool, leave: bool) -> None:
    """Run the demo until it is interrupted, or until its story is told when `leave`."""
    require_free(folder, port)
    terminal.line("MindVibe Real-Time: what it does, in about 20 seconds. Ctrl-C ends it.\n")
    with terminal.timed(f"PostgreSQL starts in {folder}"):
        database = LocalServer.open(folder)
    with database:
        with terminal.timed("alembic upgrade head"):
            migrate(folder)
        with running(folder, port) as server:
            with terminal.timed(f"uvicorn app.main:app --port {port}"):
                server.wait_until_up()
            if not asyncio.run(_tell(terminal, database.url, port, quick=quick)):
                _stop_once(signal.SIGINT, None)
            if not leave:
                _invite(terminal, folder, port)
                server.wait()


async def _tell(terminal: Terminal, url: str, port: int, *, quick: bool) -> bool:
    """Tell the story; whether it was told to its end.

    While the loop runs, a signal cancels: an exception out of a handler can hit the driver's C code in
    mid-step, and has crashed the interpreter.
    """
    loop = asyncio.get_running_loop()
    story = asyncio.ensure_future(_tell_all(terminal, url, port, quick=quick))
    for each in STOPS:
        loop.add_signal_handler(each, story.cancel)
    try:
        await story
    except asyncio.CancelledError:
        return False
    finally:
        for each in STOPS:
            loop.remove_signal_handler(each)
            signal.signal(each, _stop_once)
    return True


async def _tell_all(terminal: Terminal, url: str, port: int, *, quick: bool) -> None:
    async with Host.connect(url) as host:
        await Story(terminal, host, port, quick=quick).tell()


def _invite(terminal: Terminal, folder: Path, port: int) -> None:
    terminal.heading("Everything stays up until Ctrl-C. In other terminals, in this directory:")
    for module in ("demo.watch", "demo.write"):
        terminal.step(command_line(module, "--user", ADA, port=port, folder=folder))


def _stop_once(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's arguments
    # A second Ctrl-C must not interrupt the stopping: it would leave processes behind.
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo as the command line says; returns the exit status."""
    options = parser("demo", "A guided run of the service, on a database and a server of its own.")
    options.add_argument("--quick", action="store_true", help="leave out the time to read")
    options.add_argument("--leave", action="store_true", help="end when the story is told")
    chosen = options.parse_args()
    for each in STOPS:
        signal.signal(each, _stop_once)
    terminal = Terminal()
    try:
        run(terminal, chosen.folder, chosen.port, quick=chosen.quick, leave=chosen.leave)
    except KeyboardInterrupt:
        terminal.line("\nStopped: the server and its database.")
    except (DemoError, EmbeddedError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Nobody reads any more; without this Python complains about it once more on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

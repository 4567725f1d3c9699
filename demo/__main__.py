"""The order of things: database, migrations, server, story, and all of it back again."""

import asyncio
import os
import sys
from pathlib import Path

from app.embedded import EmbeddedError, LocalServer
from demo.host import Host
from demo.options import DemoError, command_line, parser
from demo.server import migrate, require_free, running
from demo.stops import Stopped, Stops
from demo.story import ADA, Story
from demo.terminal import Terminal


def run(terminal: Terminal, stops: Stops, folder: Path, port: int, *, quick: bool, leave: bool) -> None:
    """Run the demo until its story is told when `leave`, else until a signal; raises Stopped for one."""
    require_free(folder, port)
    terminal.line("MindVibe Real-Time: what it does, in about 20 seconds. Ctrl-C ends it.\n")
    with terminal.timed(f"PostgreSQL starts in {folder}"):
        database = LocalServer.open(folder)
    with database:
        stops.check()
        with terminal.timed("alembic upgrade head"):
            migrate(folder, stops)
        with running(folder, port) as server:
            with terminal.timed(f"uvicorn app.main:app --port {port}"):
                server.wait_until_up(stops)
            asyncio.run(stops.unless_asked(_tell(terminal, database.url, port, quick=quick)))
            if not leave:
                _invite(terminal, folder, port)
                server.wait(stops)


async def _tell(terminal: Terminal, url: str, port: int, *, quick: bool) -> None:
    async with Host.connect(url) as host:
        await Story(terminal, host, port, quick=quick).tell()


def _invite(terminal: Terminal, folder: Path, port: int) -> None:
    terminal.heading("Everything stays up until Ctrl-C. In other terminals, in this directory:")
    for module in ("demo.watch", "demo.write"):
        terminal.step(command_line(module, "--user", ADA, port=port, folder=folder))


def main() -> int:
    """Run the demo as the command line says; returns the exit status."""
    options = parser("demo", "A guided run of the service, on a database and a server of its own.")
    options.add_argument("--quick", action="store_true", help="leave out the time to read")
    options.add_argument("--leave", action="store_true", help="end when the story is told")
    chosen = options.parse_args()
    terminal, stops = Terminal(), Stops()
    try:
        run(terminal, stops, chosen.folder, chosen.port, quick=chosen.quick, leave=chosen.leave)
    except Stopped:
        stops.ignore()
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

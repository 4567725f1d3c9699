"""What the three commands share: port, folder, and the environment of child processes."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from app.settings import Settings

PORT = 8002
FOLDER = Path(".mindvibe/demo")
ROOT = Path(__file__).parents[1]


class DemoError(Exception):
    """The demo cannot go on; the text is one line that says what to do."""


def parser(command: str, description: str) -> argparse.ArgumentParser:
    """Begin the options of `python -m COMMAND`."""
    options = argparse.ArgumentParser(prog=f"python -m {command}", description=description)
    options.add_argument("--port", type=int, default=PORT, help=f"of 127.0.0.1 (default: {PORT})")
    options.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"of the demo's own database (default: {FOLDER})"
    )
    return options


def command_line(module: str, *arguments: str, port: int, folder: Path) -> str:
    """Spell a command so that it can be pasted into a shell in the current directory."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    words = [str(python), "-m", module, *arguments]
    if port != PORT:
        words += ["--port", str(port)]
    if folder != FOLDER:
        words += ["--folder", str(folder)]
    return shlex.join(words)


def child_environment(folder: Path) -> dict[str, str]:
    """Leave every setting of the service at its default, save where the database is."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return {**kept, "EMBEDDED_FOLDER": str(folder.resolve()), "PYTHONUNBUFFERED": "1"}

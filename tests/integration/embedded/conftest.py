"""Folders for local servers, and processes that use them."""

import contextlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.embedded import Binaries, Cluster
from tests.support.postgres import ROOT, discard, memory

HOLDER = Path(__file__).with_name("holder.py")

Hold = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def outer() -> Iterator[Path]:
    """A directory that everybody may traverse; servers below it are ended after the test."""
    directory = Path(tempfile.mkdtemp(prefix="mindvibe-embedded-", dir=memory()))
    directory.chmod(0o711)
    yield directory
    for data in [*directory.rglob("postgres/data"), *directory.rglob("elsewhere/postgres/data")]:
        discard(Cluster(Binaries("0", Path("/")), data.parent))
    for link in directory.rglob("elsewhere"):
        shutil.rmtree(link.resolve(), ignore_errors=True)
    shutil.rmtree(directory)


@pytest.fixture
def folder(outer: Path) -> Path:
    """A folder for a local server, not made yet."""
    return outer / "project" / ".mindvibe"


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Start processes that use the local server of a folder; killed after the test."""
    processes: list[subprocess.Popen[str]] = []
    site = sysconfig.get_path("purelib")

    def start(
        folder: Path, *arguments: str, python: Path = Path(sys.executable), **how: Any
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [python, HOLDER, folder, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{site}"},
            **how,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        with contextlib.suppress(BrokenPipeError):
            process.communicate()

"""A uvicorn process of its own, its output and its exit."""

import asyncio
import os
import re
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL, Signals

from .recorder import eventually

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0


class UvicornProcess:
    """`uvicorn tests.integration.host.application:app`, started by `uvicorn_process`."""

    def __init__(self, process: asyncio.subprocess.Process, workers: int) -> None:
        self._process = process
        self._workers = workers
        self._printed = bytearray()
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(1 << 16):
            self._printed += chunk
            self._more.set()

    @property
    def printed(self) -> str:
        """Everything it has printed, both streams."""
        return self._printed.decode()

    @property
    def pid(self) -> int:
        """Its process id; the supervisor's where there are workers."""
        return self._process.pid

    async def until(self, text: str, times: int = 1) -> str:
        """Wait until it has printed `text` so often; return everything printed."""
        async with asyncio.timeout(PATIENCE):
            while self.printed.count(text) < times:
                assert not self._reading.done(), f"ended without {text!r}:\n{self.printed}"
                self._more.clear()
                await self._more.wait()
        return self.printed

    async def address(self) -> tuple[str, int]:
        """Where it listens, once all of it does."""
        await self.until("Uvicorn running on")
        await self.until("Application startup complete", times=self._workers)
        found = re.search(r"Uvicorn running on http://([\d.]+):(\d+)", self.printed)
        assert found is not None
        address = found[1], int(found[2])
        await eventually(lambda: _listens(address))  # a worker says that it is ready before it listens
        return address

    def signal(self, number: Signals) -> None:
        """Send a signal to it alone."""
        self._process.send_signal(number)

    async def exit(self, number: Signals | None = None) -> tuple[int, float]:
        """Send a signal, if any, and wait; return the exit status and how long it took, in seconds."""
        began = time.monotonic()
        if number is not None:
            self.signal(number)
        status = await asyncio.wait_for(self._process.wait(), PATIENCE)
        await self._reading
        return status, time.monotonic() - began

    async def end(self) -> None:
        """Make sure that it and its workers are gone."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, SIGKILL)
            await self._process.wait()
        await self._reading


@asynccontextmanager
async def uvicorn_process(
    *arguments: str, workers: int = 1, **environment: str
) -> AsyncIterator[UvicornProcess]:
    """Start uvicorn on a free port, in a process group of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "uvicorn", "tests.integration.host.application:app"),
        *("--port", str(_free_port()), "--workers", str(workers), *arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    running = UvicornProcess(process, workers)
    try:
        yield running
    finally:
        await running.end()


def _listens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port

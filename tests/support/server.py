"""The real `uvicorn app.main:app` as a process of its own, on a port of its own, its log in a file."""

import asyncio
import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
import psutil

from app.settings import Settings
from tests.support.postgres import ROOT, free_port

PATIENCE = 60.0
"""Seconds that a test waits for what should happen at once, on a machine with much else to do."""

MISHAP = re.compile(
    r"^(Traceback|ERROR|CRITICAL)|Exception ignored|was never (awaited|retrieved)", re.MULTILINE
)


WITHOUT_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of `http:`; each would read all authorities of the world first, for 30 ms."""


class Server:
    """One service, of one process or with workers; `settings` are environment variables of `Settings`.

    It listens on a free port, or on `port`; `application` is another ASGI application than the service's own.
    """

    def __init__(
        self,
        database_url: str | None,
        *arguments: str,
        workers: int = 1,
        port: int | None = None,
        application: str = "app.main:app",
        **settings: object,
    ) -> None:
        self.port = port or free_port()
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 - closed by `end`
        ours = {name.upper() for name in Settings.model_fields}
        environment = {name: value for name, value in os.environ.items() if name.upper() not in ours}
        environment |= {name.upper(): str(value) for name, value in settings.items()}
        if database_url is not None:
            environment["DATABASE_URL"] = database_url
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", application),
                *("--port", str(self.port), "--workers", str(workers), *arguments),
            ],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self._family = {psutil.Process(self.process.pid)}

    # ---- where it is

    @property
    def url(self) -> str:
        """Its address for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        """Its address for TCP."""
        return "127.0.0.1", self.port

    @property
    def log(self) -> str:
        """What it has said so far."""
        return Path(self._log.name).read_text()

    def mishaps(self, since: int = 0) -> str:
        """The log from character `since` on when it holds a traceback or an error, else nothing."""
        said = self.log[since:]
        return said if MISHAP.search(said) else ""

    # ---- what it answers

    async def get(self, path: str, **parameters: str) -> httpx2.Response:
        """Ask by a connection of its own."""
        return await self.request("GET", path, params=parameters)

    def http(self) -> httpx2.AsyncClient:
        """A client of it, to be closed."""
        return httpx2.AsyncClient(base_url=self.url, timeout=PATIENCE, trust_env=False, verify=WITHOUT_TLS)

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send one HTTP request by a connection of its own."""
        async with self.http() as client:
            return await client.request(method, path, **options)

    async def health(self) -> dict[str, Any]:
        """The answer of `/realtime/health`."""
        answer = await self.get("/realtime/health")
        assert answer.status_code == 200, answer
        return dict(answer.json())

    async def ready(self) -> None:
        """Wait until it wants traffic; fails with the log when it ends instead."""
        async with asyncio.timeout(PATIENCE):
            while not await self._is_ready():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.03)

    async def healthy(self) -> None:
        """Wait until every part of it works; the listener begins a moment after the rest."""
        await self.ready()
        async with asyncio.timeout(PATIENCE):
            while True:
                health = await self.health()
                if health["status"] == "healthy" and health["listener"]["listening"]:
                    return
                await asyncio.sleep(0.03)

    async def answers(self) -> None:
        """Wait until it answers at all, ready or not."""
        async with asyncio.timeout(PATIENCE):
            while await self._status() is None:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.03)

    async def _is_ready(self) -> bool:
        return await self._status() == 200

    async def _status(self) -> int | None:
        assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log}"
        with contextlib.suppress(httpx2.TransportError):
            return (await self.get("/realtime/ready")).status_code
        return None

    # ---- its processes

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that serve: the children with workers, else itself; in the order of their start."""
        children = [child for child in psutil.Process(self.process.pid).children() if _is_worker(child)]
        self._family.update(children)
        return sorted(children, key=lambda one: one.create_time()) or [psutil.Process(self.process.pid)]

    def memory(self) -> int:
        """Bytes of memory that its serving processes hold."""
        return sum(one.memory_info().rss for one in self.workers)

    def sockets(self) -> int:
        """Connections that clients have to it, those that it is about to close aside."""
        return sum(
            one.status == psutil.CONN_ESTABLISHED and one.laddr.port == self.port
            for worker in self.workers
            for one in worker.net_connections("tcp")
        )

    def survivors(self) -> list[psutil.Process]:
        """Processes of it that stay; those of Python's own bookkeeping end a moment after the first."""
        psutil.wait_procs(self._family, timeout=3)
        return [one for one in self._family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    def send_signal(self, number: int = signal.SIGTERM) -> None:
        """Signal the process that was started, as a supervisor does."""
        self._remember_family()
        self.process.send_signal(number)

    def interrupt(self) -> None:
        """Signal the whole group, as Ctrl-C at a terminal does."""
        self._remember_family()
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """End every process of it at once."""
        self._remember_family()
        for one in self._family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait(PATIENCE)

    async def ended(self, within: float = PATIENCE) -> int:
        """Wait until it has ended; return its exit status."""
        return await asyncio.to_thread(self.process.wait, within)

    async def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Signal it and wait; return its exit status and how many seconds that took."""
        began = time.monotonic()
        self.send_signal(number)
        return await self.ended(), time.monotonic() - began

    def end(self) -> None:
        """Leave nothing of it behind."""
        self.kill()
        self._log.close()

    def _remember_family(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._family.update(psutil.Process(self.process.pid).children(recursive=True))


def _is_worker(child: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # ended, or ended and not waited for
        return any("spawn_main" in part for part in child.cmdline())
    return False

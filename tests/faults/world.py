"""What is broken: a PostgreSQL, processes of the service, and a proxy on every way between the two and to clients."""

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Mapping
from typing import Any

import asyncpg
import psutil

from app.embedded import Cluster
from tests.e2e.conformance.apps import WINDOW
from tests.faults.history import Fault, History
from tests.faults.proxy import Proxy
from tests.support.client import Address
from tests.support.postgres import Database
from tests.support.roles import role_names
from tests.support.server import MISHAP, Server

SETTINGS: dict[str, Any] = {
    "window": WINDOW,
    "queue": 64,
    "catch_up_page": 50,
    "sse_heartbeat_interval": 0.5,
    "nack_pause": 0.1,
    "heartbeat_interval": 2,
    "heartbeat_patience": 3,
    "takes_nothing_after": 5,
    "ack_timeout": 4,
    "sse_confirmed_after": 10,
    "drain_window": 1,
    "stale_after": 600,
    "beat_interval": 1,
    "attempts_per_address": 1_000_000,
    "requests_per_user": 1_000_000,
    "connections_per_user": 1000,
}
"""Every patience so short that the faults outlast it, every window so small that it fills.

But for `sse_confirmed_after`: what a stream has counts as delivered by time alone, and the proxies of a run hold
a stream for up to eight seconds before they lose it.
"""

GIVEN_UP = re.compile(
    r"ERROR: +Exception in ASGI application\n(?:(?!(?:INFO|ERROR|WARNING)).*\n)*?"
    r".*CancelledError: Task cancelled, timeout graceful shutdown exceeded\n"
    r"|ERROR: +Cancel \d+ running task\(s\), timeout graceful shutdown exceeded\n"
)
"""What uvicorn says of whoever still waited for a database, or was not reached, when the process had to go."""


class Slot:
    """One place of the deployment: clients keep its address, whichever process serves there."""

    def __init__(self, world: "World", number: int, application: str) -> None:
        self._world = world
        self._application = application
        self.number = number
        self.lock = asyncio.Lock()
        self.entrance = Proxy(0)
        self.to_database = Proxy(world.socket)
        self.to_bells = Proxy(world.socket)
        self.server: Server | None = None
        self._started = 0

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        """All of its ways."""
        return self.entrance, self.to_database, self.to_bells

    @property
    def address(self) -> Address:
        """Where clients find it."""
        return "127.0.0.1", self.entrance.port

    async def open(self) -> None:
        """Open its ways, and start its first process."""
        for proxy in self.proxies:
            await proxy.open()
        await self.start()

    async def start(self) -> None:
        """Start a process and lead new clients to it as soon as it wants them."""
        while (server := await self._try_to_start()) is None:
            pass
        self.server = server
        self.entrance.target = server.port

    async def _try_to_start(self) -> Server | None:
        """Start a process; None when somebody else took its port meanwhile."""
        world = self._world
        database, role = world.database.name, role_names(world.database)[1]
        server = Server(
            f"postgresql://{role}@127.0.0.1:{self.to_database.port}/{database}",
            application=self._application,
            listen_database_url=f"postgresql://{role}@127.0.0.1:{self.to_bells.port}/{database}",
            **world.settings,
        )
        self._started += 1
        name = f"process {self.number}.{self._started}"
        world.started(name, server)
        try:
            await server.ready()
        except (AssertionError, TimeoutError) as error:
            if "address already in use" in server.log:
                world.forget(name)
                return None
            world.history.oddities.append(f"{name} did not become ready: {error!r}")
        world.history.memory[name] = []  # from here on it is sampled
        return server

    async def replace(self) -> None:
        """Deploy: a new process first, then the old one drains and goes."""
        old = self.server
        await self.start()
        if old is not None:
            await self.retire(old)

    async def retire(self, server: Server) -> None:
        """End a process politely; that it does so in time and with 0 is a promise too."""
        began = time.monotonic()
        try:
            status, _ = await server.stop()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self._world.history.oddities.append(f"a process did not end on SIGTERM: {error!r}")
        else:
            if status != 0:
                self._world.history.oddities.append(
                    f"a process ended with {status} on SIGTERM: {server.log[-2000:]}"
                )
            if (took := time.monotonic() - began) > 30:
                self._world.history.oddities.append(f"a process took {took:.0f} s to end")


class World:
    """The whole deployment of one run; whatever it starts it ends."""

    def __init__(
        self,
        database: Database,
        history: History,
        *,
        slots: int = 3,
        applications: Mapping[int, str] | None = None,
        standby: Cluster | None = None,
        **settings: Any,
    ) -> None:
        self.database = database
        self.standby = standby
        self.history = history
        self.settings = SETTINGS | settings
        self.database_lock = asyncio.Lock()
        chosen = applications or {}
        self.slots = [Slot(self, n, chosen.get(n, "app.main:app")) for n in range(slots)]
        self._alive: dict[str, Server] = {}
        self._watching: asyncio.Task[None] | None = None

    @property
    def cluster(self) -> Cluster:
        """The PostgreSQL that is the primary."""
        return self.database.cluster

    @property
    def socket(self) -> str:
        """Where that listens."""
        return str(self.cluster.socket_dir / f".s.PGSQL.{self.cluster.port}")

    async def open(self) -> None:
        """Start everything."""
        await asyncio.gather(*(slot.open() for slot in self.slots))
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """End everything, and look through the logs."""
        if self._watching is not None:
            self._watching.cancel()
        for name, server in self._alive.items():
            said = GIVEN_UP.sub("", server.log)
            if (mishap := MISHAP.search(said)) is not None:
                self.history.oddities.append(f"{name} logged:\n{said[mishap.start() :][:3000]}")
            server.end()
        for slot in self.slots:
            for proxy in slot.proxies:
                await proxy.close()

    def started(self, name: str, server: Server) -> None:
        """Remember a process that is to be ended."""
        self._alive[name] = server

    def forget(self, name: str) -> None:
        """End a process that never was one."""
        self._alive.pop(name).end()

    async def admin(self) -> asyncpg.Connection:
        """A connection that no fault is between, when the database has recovered; raises as asyncpg does."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(asyncpg.CannotConnectNowError):
                    return await asyncpg.connect(self.database.url, timeout=10, command_timeout=30)
                await asyncio.sleep(0.1)  # a database that recovers tells nobody when it has

    def lead_to(self, cluster: Cluster) -> None:
        """Make another server the primary, for everybody."""
        self.database = Database(cluster, self.database.name)
        for slot in self.slots:
            for proxy in (slot.to_database, slot.to_bells):
                proxy.target = self.socket
                proxy.cut()

    def random_address(self, rng: random.Random) -> Address:
        """Where a load balancer without a memory would lead a client."""
        return rng.choice(self.slots).address

    def note(self, fault: str, began: float, **marks: bool) -> None:
        """Write down what was broken until now."""
        self.history.faults.append(Fault(fault, began, time.monotonic(), **marks))

    async def _watch(self) -> None:
        while True:
            for name, samples in self.history.memory.items():
                if (server := self._alive[name]).process.poll() is None:
                    with contextlib.suppress(psutil.Error):  # it may be ending
                        samples.append(server.memory())
            await asyncio.sleep(0.5)

"""Hear the bells: one connection of its own that LISTENs and is never in a transaction.

A bell is a wake and nothing else. The listener proves itself by hearing its own NOTIFY come back,
because a half-open connection reports nothing; then `close()` would hang too, so it is terminated.
After every successful LISTEN it wakes once: what was written while nobody heard is read then.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable

import asyncpg
from sqlalchemy import URL

from app.store.database import UNREACHABLE, dsn
from app.telemetry.state import State

log = logging.getLogger(__name__)

CHANNELS = ("mood_events", "chat_events", "journal_events", "sync_events", "realtime_events")


class Standby(Exception):  # noqa: N818 - the server's state, not a mistake
    """The server is a standby: it refuses LISTEN, and its snapshots lie."""


class Listener:
    """Calls `wake` at every bell; times are seconds."""

    def __init__(
        self,
        url: URL,
        wake: Callable[[], None],
        *,
        echo_interval: float = 5.0,
        echo_timeout: float = 2.0,
        retry_at_most: float = 10.0,
    ) -> None:
        self._url = url
        self._wake = wake
        self._echo_interval = echo_interval
        self._echo_timeout = echo_timeout
        self._retry_at_most = retry_at_most
        self._echoed = asyncio.Event()
        self._echo_channel = f"realtime_echo_{random.getrandbits(64):016x}"
        self.echoed_at: float | None = None
        """When the listener last proved itself, on the monotonic clock."""
        self.failure: str | None = None
        """Why it does not hear, in one line; None while it does."""

    def state(self) -> State:
        """For health: degraded while no bell is heard, since the sweep then finds what is new."""
        age = None if self.echoed_at is None else round(time.monotonic() - self.echoed_at, 3)
        details = {"listening": self.failure is None and age is not None, "echo_age_seconds": age}
        return State(details, (f"listener: {self.failure}",) if self.failure else ())

    async def run(self) -> None:
        """Listen until cancelled, reconnecting with backoff and jitter."""
        tries = 0
        while True:
            try:
                async with self._connected() as (connection, lost):
                    tries = 0
                    await self._prove_until(connection, lost)
            except (*UNREACHABLE, asyncpg.PostgresError, Standby) as error:
                reason = str(error).partition("\n")[0] or type(error).__name__
            else:
                reason = "the connection was lost"
            if self.failure is None or tries == 0:
                log.warning("the listener hears nothing: %s", reason)
            self.failure = reason
            await asyncio.sleep(min(0.1 * 2**tries, self._retry_at_most) * random.uniform(0.5, 1))  # noqa: S311
            tries = min(tries + 1, 10)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncpg.Connection, asyncio.Event]]:
        connection = await asyncpg.connect(
            dsn(self._url),
            timeout=5,
            command_timeout=self._echo_timeout,
            server_settings={"application_name": "mindvibe-realtime listener"},
        )
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            if await connection.fetchval("SELECT pg_is_in_recovery()"):
                raise Standby("the server is a standby; DATABASE_URL must lead to the primary")
            # Plain functions: coroutine callbacks would run as tasks and finish in any order.
            await connection.add_listener(self._echo_channel, self._on_echo)
            for channel in CHANNELS:
                await connection.add_listener(channel, self._on_bell)
            self._wake()
            yield connection, lost
        finally:
            connection.terminate()

    async def _prove_until(self, connection: asyncpg.Connection, lost: asyncio.Event) -> None:
        """Echo until the connection is lost; raises TimeoutError when an echo does not come back."""
        while not lost.is_set():
            self._echoed.clear()
            async with asyncio.timeout(self._echo_timeout):
                await connection.execute("SELECT pg_notify($1, '')", self._echo_channel)
                await self._echoed.wait()
            if self.failure is not None or self.echoed_at is None:
                log.info("the listener hears the bells")
                self.failure = None
            self.echoed_at = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._echo_interval):
                    await lost.wait()

    def _on_bell(self, *_: object) -> None:
        self._wake()

    def _on_echo(self, *_: object) -> None:
        self._echoed.set()

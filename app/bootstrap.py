"""Put the parts together: the only module that knows every one of them.

Sinks start before sources (pool, receipts, hub, tail, listener, scheduler), sources stop before sinks.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy import URL

from app.core.close_codes import CloseCode
from app.core.rate import Load
from app.core.recent import Recent
from app.core.session import Limits, Pace
from app.devices.registry import Registry

from app.gateway.connection import Surroundings
from app.gateway.hub import Hub
from app.gateway.uvicorn_host import HostOptions, HostReport, find_server, install
from app.gateway.websocket import Admission, WebSocketEndpoint
from app.lifecycle import Part
from app.outbox.catch_up import Archive
from app.outbox.listener import Listener
from app.outbox.ports import Command
from app.outbox.receipts import Receipts
from app.outbox.tail import Tail, Timing
from app.outbox.walk import PageSize
from app.scheduler.housekeeping import DAY, Ages
from app.scheduler.jobs import ERASE, Intervals, jobs
from app.scheduler.presence import Heartbeat
from app.scheduler.scheduler import Job, Scheduler
from app.scheduler.watch import BellsWatch, TriggersWatch
from app.settings import Bells, Environment, Settings
from app.store import bells, inspection, reads
from app.store.database import UNREACHABLE, Database, address
from app.store.inspection import Unusable
from app.store.processes import Process
from app.store.stale import Patience
from app.telemetry.health import Health, State

log = logging.getLogger(__name__)

CONFIRM_AFTER = 0.2
CONFIRM_AFTER_BUSY = 2.0
REMEMBERED_ROWS = 100_000
LAST_CONFIRMATIONS = 1.0
"""Seconds that connections get, before they are closed, to confirm what is in flight."""

FATAL = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)


class StartupError(Exception):
    """The service cannot start; the text is one line that says what to do."""


class Service:
    """One process of the service; `start` and `stop` belong to the application's lifespan."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._local: Any = None
        self._draining = False
        self._prepared = False
        self._problem: str | None = "not connected yet"

    async def start(self) -> None:
        """Start everything; raises StartupError."""
        settings = self._settings
        url = await self._database_url()
        self.database = Database(url, size=settings.pool_size)
        self.pace = Pace(CONFIRM_AFTER)
        self.hub = Hub()
        page = PageSize(settings.catch_up_page, settings.catch_up_page_bytes)
        overlap = timedelta(seconds=settings.overlap)
        self.receipts = Receipts(
            self.database, interval=settings.receipts_interval, batch=settings.receipts_batch
        )
        self.registry = Registry(self.database)
        self.load = Load(busy_above=settings.busy_above, busy_below=settings.busy_below)
        self.tail = Tail(
            self.database,
            _Outlet(self.hub, on_user_deleted=lambda: self.scheduler.hasten(ERASE)),
            timing=Timing(
                sweep=settings.sweep_interval,
                lease=settings.bell_lease if settings.bells is Bells.LEASED else None,
            ),
            load=self.load,
            page=page,
            overlap=overlap,
            recent=Recent(REMEMBERED_ROWS),
            on_busy=self._set_pace,
        )
        listen = settings.listen_database_url
        self.listener = Listener(address(listen.get_secret_value()) if listen else url, self.tail.wake)
        self.bells_watch = BellsWatch(self.database)
        self.triggers_watch = TriggersWatch(self.database)
        self.scheduler = Scheduler(self._jobs())
        archive = Archive(self.database, asyncio.Semaphore(settings.concurrent_reads), page, overlap)
        self.websocket = WebSocketEndpoint(
            self.hub,
            self.registry,
            Surroundings(
                archive=archive,
                receipts=self.receipts,
                limits=_limits(settings),
                pace=self.pace,
                routed=lambda: self.hub.routed,
                on_gone=self.hub.remove,
            ),
            Admission(settings.connections_per_user, settings.connections_per_process),
            message_size=settings.message_size,
            is_open=lambda: not self._draining,
        )
        self.health = Health(lambda: len(self.hub.users), self._states())
        self.host = self._install_host()
        self._sinks = [Part("receipts", self.receipts.run)]
        self._sources = [
            Part("tail", self.tail.run),
            Part("listener", self.listener.run),
            Part("scheduler", self.scheduler.run),
        ]
        self._preparation = Part("preparation", self._prepare_when_reachable)
        await self._prepare_or_wait()

    async def stop(self) -> None:
        """Stop everything, sources before sinks; what can still be written is written."""
        self._draining = True
        await self._preparation.stop()
        for part in reversed(self._sources):
            await part.stop()
        for connection in self.hub.everyone():
            connection.close(CloseCode.GOING_AWAY, "this process is going away")
        for part in self._sinks:
            await part.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self.receipts.flush()
        await self.database.close()
        if self._local is not None:
            await asyncio.to_thread(self._local.close)

    async def drain(self) -> None:
        """Close every connection gently: confirm what is in flight, then tell them to come back."""
        self._draining = True
        leaving = self.hub.everyone()
        for connection in leaving:
            connection.hasten()
        deadline = time.monotonic() + LAST_CONFIRMATIONS
        while any(connection.session.in_flight for connection in leaving) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for connection in leaving:
            connection.leave(random.randint(0, int(self._settings.drain_window * 1000)))  # noqa: S311
        await self.receipts.flush()

    # ---- starting

    async def _database_url(self) -> URL:
        settings = self._settings
        if settings.database_url is not None:
            try:
                return address(settings.database_url.get_secret_value())
            except ValueError as error:
                raise StartupError(str(error)) from error
        if settings.environment is Environment.PRODUCTION:
            raise StartupError(
                "DATABASE_URL is not set, and the embedded PostgreSQL is refused in production"
            )
        from app.embedded import EmbeddedError, LocalServer  # noqa: PLC0415 - an optional extra

        try:
            self._local = await asyncio.to_thread(LocalServer.open, settings.embedded_folder)
        except EmbeddedError as error:
            raise StartupError(str(error)) from error
        return address(self._local.url)

    def _install_host(self) -> HostReport:
        settings = self._settings
        report = install(
            find_server(),
            HostOptions(
                message_size=settings.message_size,
                handshake_timeout=settings.handshake_timeout,
                drain_timeout=settings.drain_window,
            ),
            self.drain,
        )
        log.log(logging.WARNING if report.missing else logging.INFO, "%s", report)
        return report

    def _jobs(self) -> Sequence[Job]:
        settings = self._settings
        return jobs(
            self.database,
            self.hub,
            self.receipts,
            heartbeat=Heartbeat(
                self.database, Process(uuid4(), socket.gethostname(), os.getpid()), self._stats
            ),
            bells=self.bells_watch,
            triggers=self.triggers_watch,
            patience=Patience(settings.stale_after),
            ages=Ages(
                delivered=settings.retention_days * DAY,
                undelivered=settings.undelivered_days * DAY,
                dead_letters=settings.dead_letter_days * DAY,
                synced=settings.synced_days * DAY,
                unsynced=settings.unsynced_days * DAY,
                devices=settings.device_days * DAY,
            ),
            intervals=Intervals(
                redeliver=settings.stale_interval,
                beat=settings.beat_interval,
                bells=settings.bells_interval,
                triggers=settings.triggers_interval,
                erase=settings.erase_interval,
                housekeeping=settings.housekeeping_interval,
            ),
        )

    async def _prepare_or_wait(self) -> None:
        """Prepare the database; one that cannot be reached yet is waited for in the background."""
        try:
            await self._prepare()
        except (Unusable, *FATAL) as error:
            await self.database.close()
            raise StartupError(f"cannot start: {_one_line(error)}") from error
        except (*UNREACHABLE, asyncpg.PostgresError) as error:
            self._problem = _one_line(error)
            log.warning("the database cannot be reached yet: %s", self._problem)
            self._preparation.start()

    async def _prepare_when_reachable(self) -> None:
        while not self._prepared:
            try:
                await self._prepare()
            except (*UNREACHABLE, asyncpg.PostgresError, Unusable) as error:
                self._problem = _one_line(error)
                await asyncio.sleep(0.5)
        await asyncio.Event().wait()

    async def _prepare(self) -> None:
        async with self.database.driver() as connection:
            findings = await inspection.inspect(connection)
            await reads.create_incarnation(connection)
            adopted = await inspection.adopt_foreign_rows(connection)
            if self._settings.bells is not Bells.LEASED:
                ringing = bells.ALWAYS if self._settings.bells is Bells.ALWAYS else bells.NEVER
                await bells.ring_until(connection, ringing)
        if adopted:
            log.warning("%s rows came from another cluster and count as seen", adopted)
        self.triggers_watch.missing = findings.triggers
        for trigger in findings.triggers:
            log.warning("missing or disabled: %s; run `alembic upgrade head`", trigger)
        for part in (*self._sinks, *self._sources):
            part.start()
        self._prepared, self._problem = True, None

    # ---- what it says of itself

    def _set_pace(self, busy: bool) -> None:  # noqa: FBT001 - a callback with one value
        self.pace.confirm_after = CONFIRM_AFTER_BUSY if busy else CONFIRM_AFTER

    def _stats(self) -> dict[str, Any]:
        """What the heartbeat tells of this process."""
        return {
            "connections": self.hub.count,
            "users": len(self.hub.users),
            "rows_per_second": round(self.tail.rows_per_second, 1),
            "receipts_unwritten": self.receipts.unwritten,
        }

    def _states(self) -> dict[str, Any]:
        return {
            "database": self._database_state,
            "listener": self._listener_state,
            "tail": self._tail_state,
            "delivery": self._delivery_state,
            "bells": self.bells_watch.state,
            "triggers": self.triggers_watch.state,
            "jobs": self.scheduler.state,
        }

    def _database_state(self) -> State:
        problem = self._problem or self.tail.failure
        reasons = [f"database: {problem}"] if problem else []
        details = {"reachable": problem is None, "embedded": self._local is not None}
        return State(details, tuple(reasons), ready=problem is None)

    def _listener_state(self) -> State:
        echoed_at, failure = self.listener.echoed_at, self.listener.failure
        age = None if echoed_at is None else round(time.monotonic() - echoed_at, 3)
        reasons = (f"listener: {failure}",) if failure and self._prepared else ()
        return State({"listening": failure is None, "echo_age_seconds": age}, reasons)

    def _tail_state(self) -> State:
        read_at = self.tail.read_at
        lag = None if read_at is None else round(time.monotonic() - read_at, 3)
        details = {
            "lag_seconds": lag,
            "rows_per_second": round(self.tail.rows_per_second, 1),
            "busy": self.load.busy,
        }
        behind = lag is not None and lag > 10 * self._settings.sweep_interval
        return State(details, (f"tail: nothing read for {lag} s",) if behind else ())

    def _delivery_state(self) -> State:
        details = {
            "confirmation": "ping" if self.host.confirms else "transport",
            "connections": self.hub.count,
            "receipts_unwritten": self.receipts.unwritten,
            "limits": {
                "connections": self._settings.connections_per_process,
                "connections_per_user": self._settings.connections_per_user,
                "message_bytes": self._settings.message_size,
            },
            "missing": self.host.missing,
        }
        reasons = [f"receipts: {self.receipts.failure}"] if self.receipts.failure else []
        if self._draining:
            reasons.append("this process is going away")
        full = self.hub.count >= self._settings.connections_per_process
        if full:
            reasons.append("this process takes no more connections")
        return State(details, tuple(reasons), ready=not (self._draining or full))


class _Outlet:
    """The hub as the tail sees it: rows are routed, commands are carried out."""

    def __init__(self, hub: Hub, *, on_user_deleted: Callable[[], None]) -> None:
        self._hub = hub
        self._on_user_deleted = on_user_deleted
        self.route = hub.route
        self.completed = hub.completed

    @property
    def users(self) -> dict[str, Any]:
        return self._hub.users

    def obey(self, command: Command) -> None:
        """Close what the command says."""
        if command.user_id is None:
            return
        match command.kind:
            case "user_deleted":
                self._hub.close_user(command.user_id, CloseCode.NOT_ALLOWED, "this user was deleted")
                self._on_user_deleted()
            case "disconnect":
                self._hub.close_user(command.user_id, CloseCode.NOT_ALLOWED, "disconnected by the host")
            case "device_removed" if command.device_id is not None:
                reason = "this device was removed"
                self._hub.close_device(command.user_id, command.device_id, CloseCode.NOT_ALLOWED, reason)
            case _:
                log.debug("nothing to do for a %s command", command.kind)


def _limits(settings: Settings) -> Limits:
    return Limits(
        window=settings.window,
        window_bytes=settings.window_bytes,
        queue=settings.queue,
        queue_bytes=settings.queue_bytes,
        heartbeat_interval=settings.heartbeat_interval,
        heartbeat_patience=settings.heartbeat_patience,
        takes_nothing_after=settings.takes_nothing_after,
        inbound_rate=settings.inbound_rate,
    )


def _one_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

"""Put the parts together: the only module that knows every one of them.

Sinks start before sources (pool, receipts, hub, tail, listener, scheduler), sources stop before sinks.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import URL

from app.admin.letters import DeadLetters
from app.auth import choice
from app.auth.caller import Callers
from app.auth.choice import Misconfigured, Sources
from app.auth.doorkeeper import Doorkeeper
from app.auth.endpoints import Offices
from app.auth.jwks import Jwks
from app.auth.keys import Keys
from app.auth.revocations import Revocations
from app.auth.service import ServiceAccess
from app.auth.tickets import Tickets
from app.auth.tokens import Tokens
from app.core.addresses import trusts_everybody
from app.core.allowance import Allowance
from app.core.close_codes import CloseCode
from app.core.flight import Limits, Pace
from app.core.rate import Load
from app.core.recent import Recent
from app.devices.registry import Registry
from app.gateway.addresses import Forwarding
from app.gateway.admission import Admission, Reception
from app.gateway.connection import Surroundings
from app.gateway.departure import leave_all, longest
from app.gateway.door import Door
from app.gateway.elsewhere import Elsewhere
from app.gateway.hub import Hub
from app.gateway.origins import ANY, Origins
from app.gateway.sse import SseEndpoint
from app.gateway.uvicorn_host import HostOptions, HostReport, find_server, install
from app.gateway.websocket import WebSocketEndpoint
from app.gateway.wheel import Wheel
from app.lifecycle import Part
from app.outbox.catch_up import Archive
from app.outbox.fan_out import FanOut
from app.outbox.listener import Listener
from app.outbox.receipts import Receipts
from app.outbox.tail import Tail, Timing
from app.outbox.walk import PageSize
from app.preparation import Preparation, StartupError
from app.request_limits import RequestLimits, RequestsPerUser
from app.scheduler.housekeeping import DAY, Ages
from app.scheduler.jobs import ERASE, Intervals, jobs
from app.scheduler.presence import Heartbeat
from app.scheduler.scheduler import Job, Scheduler
from app.scheduler.watch import BellsWatch, TriggersWatch
from app.settings import Bells, Environment, Settings
from app.store import bells
from app.store.database import Database, address
from app.store.inspection import Findings
from app.store.processes import Process
from app.store.redeliveries import Persistence
from app.store.stale import Patience
from app.sync.acks import Acks
from app.sync.endpoints import Sync
from app.sync.polling import Polling
from app.sync.reading import MOST_BYTES
from app.sync.uploads import Uploads
from app.sync.waiters import Waiters
from app.telemetry.health import Health
from app.telemetry.state import State

log = logging.getLogger(__name__)

CONFIRM_AFTER = 0.2
CONFIRM_AFTER_BUSY = 2.0
REMEMBERED_ROWS = 100_000
MINUTE = 60.0
LAST_WORD = 2.0
"""Seconds that a stopping process waits for the database to take what is left."""
LAST_ANSWERS = 0.3
"""Seconds that requests get for their answers when the drain is done; a second later they are cut off."""
RING_UNTIL = {Bells.ALWAYS: bells.ALWAYS, Bells.LEASED: None, Bells.OFF: bells.NEVER}


class Service:
    """One process of the service; `start` and `stop` belong to the application's lifespan."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._local: Any = None
        self._draining = False
        self.leaving = asyncio.Event()
        """Set when whoever has no answer yet is to be told to come back."""
        if settings.environment is Environment.PRODUCTION and settings.database_url is None:
            raise StartupError(
                "DATABASE_URL is not set, and the embedded PostgreSQL is refused in production"
            )
        self._keys, self.access = _authentication(settings)
        self.origins = _origins(settings, is_open=self._keys is None)
        self.elsewhere = Elsewhere(settings.connections_per_user)
        self.request_limits = RequestLimits(
            url_size=settings.url_size, body_size=settings.body_size, body_timeout=settings.body_timeout
        )
        self.failures = Allowance(settings.attempts_per_address, MINUTE)
        self.forwarding = Forwarding(None)

    async def start(self) -> None:
        """Start everything; raises StartupError."""
        settings = self._settings
        url = await self._database_url()
        self.database = Database(url, size=settings.pool_size)
        self.hub = Hub(on_user_deleted=lambda: self.scheduler.hasten(ERASE))
        self.receipts = Receipts(
            self.database,
            interval=settings.receipts_interval,
            batch=settings.receipts_batch,
            persistence=Persistence(first_pause=settings.nack_pause),
        )
        self.registry = Registry(self.database, self.receipts.take_over)
        self.callers, self.offices = self._doors()
        doorkeeper = self.callers.doorkeeper
        self.letters = DeadLetters(self.database)
        self.waiters = Waiters()
        page = PageSize(settings.catch_up_page, settings.catch_up_page_bytes)
        overlap = timedelta(seconds=settings.overlap)
        pace = Pace(CONFIRM_AFTER)
        self.tail = self._tail(page, overlap, pace)
        listen = settings.listen_database_url
        self.listener = Listener(address(listen.get_secret_value()) if listen else url, self.tail.wake)
        self.triggers_watch = TriggersWatch(self.database)
        self.bells_watch = BellsWatch(self.database)
        self.scheduler = Scheduler(self._jobs())
        turns = asyncio.Semaphore(settings.concurrent_reads)
        archive = Archive(self.database, turns, page, overlap, self.receipts, begun=self.tail.begun)
        self.sync = self._sync(archive)
        limits = _limits(settings)
        surroundings = Surroundings(
            archive=archive,
            receipts=self.receipts,
            limits=limits,
            pace=pace,
            wheel=Wheel(asyncio.get_running_loop()),
            routed=lambda: self.hub.routed,
            on_gone=self.hub.remove,
            doorkeeper=doorkeeper,
        )
        reception = Reception(
            self.hub,
            doorkeeper,
            self.registry,
            Admission(settings.connections_per_user, settings.connections_per_process),
            self.elsewhere.of,
            is_open=lambda: not self._draining,
        )
        door = Door(
            self.origins, Allowance(settings.attempts_per_address, MINUTE), url_size=settings.url_size
        )
        self.websocket = WebSocketEndpoint(door, reception, surroundings, message_size=settings.message_size)
        self.sse = SseEndpoint(door, reception, replace(surroundings, limits=_sse_limits(limits, settings)))
        self._sinks = [Part("receipts", self.receipts.run)]
        self._sources = [
            Part("tail", self.tail.run),
            Part("listener", self.listener.run),
            Part("scheduler", self.scheduler.run),
        ]
        self._fetching = [Part("keys", self._keys.run)] if isinstance(self._keys, Jwks) else []
        for part in self._fetching:
            part.start()
        preparation = Preparation(
            self.database,
            ring_until=RING_UNTIL[settings.bells],
            embedded=self._local is not None,
            then=self._start_parts,
        )
        self._waiting = Part("preparation", preparation.run)
        self.host = self._install_host()
        self.forwarding = Forwarding(self.host.trusted_proxies)
        self.health = self._health(preparation)
        try:
            self._check_proxies()
            if not await preparation.attempt():
                self._waiting.start()
        except StartupError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop everything, sources before sinks; what can still be written is written."""
        self._draining = True
        self.waiters.release()
        await self._waiting.stop()
        for part in (*self._fetching, *reversed(self._sources)):
            await part.stop()
        if isinstance(self._keys, Jwks):
            await self._keys.close()
        for connection in self.hub.everyone():
            connection.close(CloseCode.GOING_AWAY, "this process is going away")
        for part in self._sinks:
            await part.stop()
        # A database that hangs keeps nobody from leaving: what is not written is delivered again.
        for last_word in (self.receipts.flush, self.database.close):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD):
                    await last_word()
        if self._local is not None:
            await asyncio.to_thread(self._local.close)

    async def drain(self) -> None:
        """Let every connection go gently, one after the other; see `leave_all`."""
        self._draining = True
        self.waiters.release()
        await leave_all(self.hub.everyone(), window=self._settings.drain_window)
        asyncio.get_running_loop().call_later(LAST_ANSWERS, self.leaving.set)

    async def _database_url(self) -> URL:
        settings = self._settings
        try:
            if settings.database_url is not None:
                return address(settings.database_url.get_secret_value())
        except ValueError as error:
            raise StartupError(str(error)) from error
        # Imported here, since it needs a Unix and the service does not.
        from app.embedded import EmbeddedError, LocalServer  # noqa: PLC0415

        try:
            self._local = await asyncio.to_thread(LocalServer.open, settings.embedded_folder)
        except EmbeddedError as error:
            raise StartupError(str(error)) from error
        return address(self._local.url)

    def _doors(self) -> tuple[Callers, Offices]:
        settings = self._settings
        tokens = None
        if self._keys is None:
            log.warning("%s; %s", choice.OPEN.upper(), choice.HOW)
        else:
            tokens = Tokens(
                self._keys,
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                user_claim=settings.jwt_user_claim,
                leeway=settings.jwt_leeway,
            )
        tickets = Tickets(self.database)
        doorkeeper = Doorkeeper(tokens, tickets, Revocations(self.database))
        secure = settings.environment is Environment.PRODUCTION
        callers = Callers(doorkeeper, RequestsPerUser(Allowance(settings.requests_per_user, MINUTE)))
        return callers, Offices(tickets, callers, secure)

    def _tail(self, page: PageSize, overlap: timedelta, pace: Pace) -> Tail:
        settings = self._settings

        def set_pace(busy: bool) -> None:  # noqa: FBT001 - a callback with one value
            pace.confirm_after = CONFIRM_AFTER_BUSY if busy else CONFIRM_AFTER

        return Tail(
            self.database,
            FanOut(self.hub, self.waiters),
            timing=Timing(
                sweep=settings.sweep_interval,
                lease=settings.bell_lease if settings.bells is Bells.LEASED else None,
                ring_until=RING_UNTIL[settings.bells],
            ),
            load=Load(busy_above=settings.busy_above, busy_below=settings.busy_below),
            page=page,
            overlap=overlap,
            recent=Recent(REMEMBERED_ROWS),
            on_busy=set_pace,
        )

    def _sync(self, archive: Archive) -> Sync:
        def archive_of(rows: int) -> Archive:
            return replace(archive, page=PageSize(rows, MOST_BYTES), settles=False)

        return Sync(
            self.registry,
            Polling(archive_of, self.registry, self.waiters),
            Acks(self.database, archive_of, self.receipts),
            Uploads(self.database),
        )

    def _jobs(self) -> Sequence[Job]:
        settings = self._settings
        return jobs(
            self.database,
            self.hub,
            self.receipts,
            heartbeat=Heartbeat(
                self.database,
                Process(uuid4(), socket.gethostname(), os.getpid()),
                self._stats,
                heard=self.elsewhere.heard,
                believed=3 * settings.beat_interval,
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

    def _install_host(self) -> HostReport:
        settings = self._settings
        options = HostOptions(
            message_size=settings.message_size,
            handshake_timeout=settings.handshake_timeout,
            half_open=settings.half_open_per_process,
            head_size=settings.head_size,
            drain_timeout=longest(settings.drain_window),
        )
        report = install(find_server(), options, self.drain)
        log.log(logging.WARNING if report.missing else logging.INFO, "%s", report)
        return report

    def _check_proxies(self) -> None:
        """Refuse in production what undoes every limit per address; raises StartupError."""
        trusted = self.host.trusted_proxies or ""
        if self._settings.environment is Environment.PRODUCTION and trusts_everybody(trusted):
            raise StartupError(
                f"cannot start: FORWARDED_ALLOW_IPS is {trusted}, by which in production anybody could choose"
                " the address that is counted; name your proxies, or the network they are in, as 10.0.0.0/8"
            )

    def _start_parts(self, findings: Findings) -> None:
        self.triggers_watch.note(findings.triggers)
        for part in (*self._sinks, *self._sources):
            part.start()

    def _health(self, preparation: Preparation) -> Health:
        return Health(
            lambda: len(self.hub.users),
            {
                "database": lambda: preparation.state(self.tail.failure),
                "listener": self.listener.state,
                "tail": self.tail.state,
                "receipts": self.receipts.state,
                "delivery": self._delivery_state,
                "clients": self._clients_state,
                "bells": self.bells_watch.state,
                "triggers": self.triggers_watch.state,
                "jobs": self.scheduler.state,
                "authentication": lambda: choice.state(
                    self._keys, has_service_token=self._settings.service_token is not None
                ),
            },
        )

    def _delivery_state(self) -> State:
        settings = self._settings
        details = {
            "confirmation": "ping" if self.host.confirms else "transport",
            "sse_confirmation": "acknowledged" if self.host.has("acknowledgements") else "transport",
            "connections": self.hub.count,
            "waiting": self.waiters.count,
            "limits": {
                "connections": settings.connections_per_process,
                "connections_per_user": settings.connections_per_user,
                "message_bytes": settings.message_size,
                "attempts_per_address": settings.attempts_per_address,
            },
            "missing": self.host.missing,
        }
        reasons = []
        if self._draining:
            reasons.append("this process is going away")
        if self.hub.count >= settings.connections_per_process:
            reasons.append("this process takes no more connections")
        return State(details, tuple(reasons), ready=not reasons)

    def _clients_state(self) -> State:
        """From where clients come, as far as this process knows."""
        origins = self.origins
        return State(
            {
                "origins": ANY if origins.anyone else sorted(origins.listed),
                "trusted_proxies": self.forwarding.trusted,
                "ignored_forwarding_headers": self.forwarding.ignored,
            }
        )

    def _stats(self) -> dict[str, Any]:
        """What the heartbeat tells of this process."""
        return {
            "connections": self.hub.count,
            "waiting": self.waiters.count,
            "users": len(self.hub.users),
            "crowds": self.elsewhere.crowds(self.hub.users),
            "rows_per_second": round(self.tail.rows_per_second, 1),
            "receipts_unwritten": self.receipts.unwritten,
        }


def _origins(settings: Settings, *, is_open: bool) -> Origins:
    """Whose pages may connect; everybody's while nobody has to say who they are, and then only."""
    if settings.allowed_origins is None:
        return Origins(anyone=is_open)
    try:
        origins = Origins.parse(settings.allowed_origins)
    except ValueError as error:
        raise StartupError(str(error)) from error
    if origins.anyone and not is_open:
        raise StartupError("ALLOWED_ORIGINS: * is refused where tokens are asked for; list your pages")
    return origins


def _authentication(settings: Settings) -> tuple[Keys | None, ServiceAccess]:
    secret, token = settings.jwt_secret, settings.service_token
    sources = Sources(
        None if secret is None else secret.get_secret_value(),
        settings.jwt_public_key_file,
        settings.jwt_jwks_url,
        max_age=settings.jwks_max_age,
        cooldown=settings.jwks_cooldown,
    )
    needing_keys = {"JWT_ISSUER": settings.jwt_issuer, "JWT_AUDIENCE": settings.jwt_audience}
    try:
        keys = choice.choose_keys(
            sources,
            in_production=settings.environment is Environment.PRODUCTION,
            other_settings=[name for name, value in needing_keys.items() if value is not None],
        )
        access = choice.service_access(
            None if token is None else token.get_secret_value(), is_open=keys is None
        )
    except Misconfigured as error:
        raise StartupError(f"cannot start: {error}") from error
    return keys, access


def _limits(settings: Settings) -> Limits:
    return Limits(
        window=settings.window,
        window_bytes=settings.window_bytes,
        queue=settings.queue,
        queue_bytes=settings.queue_bytes,
        heartbeat_interval=settings.heartbeat_interval,
        heartbeat_patience=settings.heartbeat_patience,
        takes_nothing_after=settings.takes_nothing_after,
        ack_timeout=settings.ack_timeout,
        inbound_rate=settings.inbound_rate,
    )


def _sse_limits(limits: Limits, settings: Settings) -> Limits:
    return replace(
        limits,
        heartbeat_interval=settings.sse_heartbeat_interval,
        confirmed_after=settings.sse_confirmed_after,
    )

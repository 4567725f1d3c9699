"""One process of the service: what there is, and in which order it starts and stops.

Sinks start before sources (pool, receipts, hub, tail, listener, scheduler), sources stop before sinks.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from app.admin.letters import DeadLetters
from app.auth import choice
from app.auth.endpoints import Offices
from app.auth.jwks import Jwks
from app.auth.tickets import Tickets
from app.bootstrap import authentication, database, endpoints, gateway, outbox, report, scheduling
from app.core.allowance import Allowance
from app.core.close_codes import CloseCode
from app.core.flight import Pace
from app.devices.registry import Registry
from app.gateway.addresses import Forwarding
from app.gateway.admission import Reception
from app.gateway.connection import Surroundings
from app.gateway.departure import leave_all
from app.gateway.elsewhere import Elsewhere
from app.gateway.hub import Hub
from app.gateway.wheel import Wheel
from app.lifecycle import Part
from app.outbox.catch_up import Archive
from app.outbox.fan_out import FanOut
from app.preparation import Preparation, StartupError
from app.scheduler.jobs import ERASE
from app.scheduler.scheduler import Scheduler
from app.scheduler.watch import BellsWatch, TriggersWatch
from app.settings import Environment, Settings
from app.store.database import Database
from app.store.inspection import Findings
from app.sync.waiters import Waiters
from app.telemetry.health import Health

if TYPE_CHECKING:
    from app.embedded import LocalServer

MINUTE = 60.0
LAST_WORD = 2.0
"""Seconds that a stopping process waits for the database to take what is left."""
LAST_ANSWERS = 0.3
"""Seconds that requests get for their answers when the drain is done; a second later they are cut off."""


class Service:
    """One process of the service; `start` and `stop` belong to the application's lifespan."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._local: LocalServer | None = None
        self._draining = False
        self.leaving = asyncio.Event()
        """Set when whoever has no answer yet is to be told to come back."""
        database.refuse_embedded_in_production(settings)
        self._keys, self.access = authentication.keys_and_access(settings)
        self.origins = authentication.origins(settings, is_open=self._keys is None)
        self.elsewhere = Elsewhere(settings.connections_per_user)
        self.request_limits = endpoints.request_limits(settings)
        self.failures = Allowance(settings.attempts_per_address, MINUTE)
        self.forwarding = Forwarding(None)

    async def start(self) -> None:
        """Start everything; raises StartupError."""
        settings = self._settings
        url, self._local = await database.find(settings)
        self.database = Database(url, size=settings.pool_size)
        self.hub = Hub(on_user_deleted=lambda: self.scheduler.hasten(ERASE))
        self.waiters = Waiters()
        self.receipts = outbox.receipts(settings, self.database)
        self.registry = Registry(self.database, self.receipts.take_over)
        self.letters = DeadLetters(self.database)
        tickets = Tickets(self.database)
        self.callers = authentication.callers(settings, self.database, self._keys, tickets)
        self.offices = Offices(tickets, self.callers, settings.environment is Environment.PRODUCTION)
        pace = Pace(outbox.CONFIRM_AFTER)
        self.tail = outbox.tail(settings, self.database, FanOut(self.hub, self.waiters), pace, self.receipts)
        self.listener = outbox.listener(settings, url, self.tail.wake)
        self.scheduler = self._scheduler()
        archive = outbox.archive(settings, self.database, self.receipts, self.tail)
        self.sync = endpoints.sync(
            self.database,
            self.registry,
            outbox.archive_of_answers(archive),
            self.receipts,
            self.waiters,
        )
        self.websocket, self.sse = gateway.endpoints(
            settings, self.origins, self._reception(), self._surroundings(archive, pace)
        )
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
            ring_until=outbox.RING_UNTIL[settings.bells],
            embedded=self._local is not None,
            then=self._start_parts,
        )
        self._waiting = Part("preparation", preparation.run)
        self.host = gateway.host(settings, self.drain)
        self.forwarding = Forwarding(self.host.trusted_proxies)
        self.health = self._health(preparation)
        try:
            authentication.check_proxies(settings, self.host.trusted_proxies or "")
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
        try:
            await leave_all(self.hub.everyone(), window=self._settings.drain_window)
        finally:  # also when the server has no time left for it
            asyncio.get_running_loop().call_later(LAST_ANSWERS, self.leaving.set)

    def _start_parts(self, findings: Findings) -> None:
        self.triggers_watch.note(findings.triggers)
        for part in (*self._sinks, *self._sources):
            part.start()

    def _scheduler(self) -> Scheduler:
        self.triggers_watch = TriggersWatch(self.database)
        self.bells_watch = BellsWatch(self.database)
        stats = report.Stats(self.hub, self.waiters, self.elsewhere, self.tail, self.receipts)
        return Scheduler(
            scheduling.every_job(
                self._settings,
                self.database,
                self.hub,
                self.receipts,
                beats=scheduling.heartbeat(self._settings, self.database, stats, self.elsewhere),
                bells=self.bells_watch,
                triggers=self.triggers_watch,
            )
        )

    def _reception(self) -> Reception:
        return Reception(
            self.hub,
            self.callers.doorkeeper,
            self.registry,
            gateway.admission(self._settings),
            self.elsewhere.of,
            is_open=lambda: not self._draining,
        )

    def _surroundings(self, archive: Archive, pace: Pace) -> Surroundings:
        return Surroundings(
            archive=archive,
            receipts=self.receipts,
            limits=gateway.limits(self._settings),
            pace=pace,
            wheel=Wheel(asyncio.get_running_loop()),
            routed=lambda: self.hub.routed,
            on_gone=self.hub.remove,
            doorkeeper=self.callers.doorkeeper,
        )

    def _health(self, preparation: Preparation) -> Health:
        settings = self._settings
        return Health(
            lambda: len(self.hub.users),
            {
                "database": lambda: preparation.state(self.tail.failure),
                "listener": self.listener.state,
                "tail": self.tail.state,
                "receipts": self.receipts.state,
                "delivery": lambda: report.delivery(
                    settings, self.hub, self.waiters, self.host, is_draining=self._draining
                ),
                "clients": lambda: report.clients(self.origins, self.forwarding),
                "bells": self.bells_watch.state,
                "triggers": self.triggers_watch.state,
                "jobs": self.scheduler.state,
                "parts": lambda: report.parts([*self._sinks, *self._sources, *self._fetching]),
                "authentication": lambda: choice.state(
                    self._keys, has_service_token=settings.service_token is not None
                ),
            },
        )

"""The one reader per process that turns wakes into committed rows, in order.

            wake | sweep                      nothing left
    asleep ─────────────▶ reading ───────────────────────────▶ renew the lease if due ─▶ asleep
                           │  ▲  ▲                                      │ it had lapsed or was ended
              becomes busy │  │  └──────────────────────────────────────┘
                           ▼  │ not busy any more
              end the lease, read, pause, read, …

It starts at the current snapshot: what is older is each connection's own catch-up, which must not be read
before (`begun`): what is committed between the two would be nobody's.

Bells slow the writers down. A busy tail needs none, so it lets the lease end, where there are other processes
when any that still wants one has asked anew, and does not renew it. Before a tail sleeps it renews and, where
the lease had lapsed, reads once more, since writers may have been silent meanwhile. What a writer committed
without a bell after that read is found by the next sweep.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import asyncpg

from app.core import commands
from app.core.commands import Command
from app.core.messages import Message
from app.core.moment import microseconds
from app.core.position import Horizon, Pass, Position
from app.core.rate import Load
from app.core.reads import Interrupted
from app.core.recent import Recent
from app.outbox.ports import Outlet
from app.outbox.walk import PageSize, Walk, all_but
from app.store import bells, membership, reads
from app.store.database import UNREACHABLE, Database
from app.store.reads import EVERYTHING, Row, Unfit, Unseen
from app.telemetry.state import State

log = logging.getLogger(__name__)

LATE_SWEEP = 0.2
"""Seconds by which a process may be late to renew its lease, before one that is busy has ended it."""

LATE = timedelta(seconds=5)
"""Only a tail that was kept from reading for longer can be overtaken by retention, which is no shorter."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds between sweeps, of the lease (None: bells are not leased), between quick reads while busy.

    `believed`: for how long another process counts as alive that says nothing.
    `ring_until` is where bells that are not leased are set to again when the database restarted, in
    unix milliseconds: a crash forgets it. None leaves them.
    """

    sweep: float = 1.0
    lease: float | None = 3.0
    busy_pause: float = 0.01
    retry: float = 0.5
    believed: float = 15.0
    ring_until: int | None = None


class Tail:
    """Reads what is new and puts it into the outlet."""

    def __init__(
        self,
        database: Database,
        outlet: Outlet,
        *,
        timing: Timing,
        load: Load,
        page: PageSize,
        overlap: timedelta,
        recent: Recent,
        on_busy: Callable[[bool], None],
        on_restart: Callable[[], None],
        burst: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._database = database
        self._outlet = outlet
        self._timing = timing
        self._load = load
        self._page = page
        self._overlap = overlap
        self._recent = recent
        self._on_busy = on_busy
        self._on_restart = on_restart
        self._burst = burst
        self._wake = asyncio.Event()
        self._position: Position | None = None
        self.begun = asyncio.Event()
        """Set once it has a place from which it routes whatever is committed."""
        self._pass: Pass | None = None
        # Rows handed over before a restart, by id and creation time, while they are read again.
        self._routed_before: frozenset[tuple[int, int]] = frozenset()
        self._lease_renewed_at = float("-inf")
        self.read_at: float | None = None
        """When the outbox was last read to its end, on the monotonic clock."""
        self.failure: str | None = None
        """Why it is not reading, in one line; None while it is."""

    @property
    def rows_per_second(self) -> float:
        """The smoothed rate of rows seen."""
        return self._load.rate

    def wake(self) -> None:
        """Look at the outbox now; wakes that come while it looks collapse into one."""
        self._wake.set()

    def state(self) -> State:
        """For health: degraded when nothing has been read for ten sweeps."""
        lag = None if self.read_at is None else round(time.monotonic() - self.read_at, 3)
        details = {
            "lag_seconds": lag,
            "rows_per_second": round(self.rows_per_second, 1),
            "busy": self._load.busy,
        }
        behind = lag is not None and lag > 10 * self._timing.sweep
        return State(details, (f"tail: nothing read for {lag} s",) if behind else ())

    async def run(self) -> None:
        """Read until cancelled; a database that goes away is waited for."""
        while True:
            try:
                async with self._database.driver() as connection:
                    await self._follow(connection)
            except (*UNREACHABLE, asyncpg.PostgresError, Unfit, Interrupted) as error:
                if self.failure is None:
                    log.warning("the tail cannot read: %s", _line(error))
                self.failure = _line(error)
                await asyncio.sleep(self._timing.retry)

    async def _follow(self, connection: asyncpg.Connection) -> None:
        while True:
            self._wake.clear()
            began = time.monotonic()
            rows = await self._read(connection)
            now = self.read_at = time.monotonic()
            if self.failure is not None:
                log.info("the tail reads again")
                self.failure = None
            was_busy = self._load.busy
            if self._load.observe(rows, now - began, now) != was_busy:
                self._on_busy(self._load.busy)
                if self._load.busy:
                    await self._end_lease(connection)
            if self._load.busy:
                await asyncio.sleep(self._load.pause(self._timing.busy_pause))
            elif await self._may_sleep(connection, now):
                await self._sleep(now)

    async def _may_sleep(self, connection: asyncpg.Connection, now: float) -> bool:
        """Renew the lease when that is due; whether nobody can have been silent meanwhile."""
        lease = self._timing.lease
        if lease is None or now - self._lease_renewed_at < self._timing.sweep:
            return True
        lapsed = now - self._lease_renewed_at >= lease
        await bells.renew_lease(connection, lease)
        self._lease_renewed_at = now
        return not lapsed

    async def _end_lease(self, connection: asyncpg.Connection) -> None:
        if self._timing.lease is not None:
            self._lease_renewed_at = float("-inf")
            await bells.end_lease(connection, self._timing.sweep + LATE_SWEEP, self._timing.believed)

    async def _sleep(self, now: float) -> None:
        until = now + self._timing.sweep
        if self._timing.lease is not None:
            until = min(until, self._lease_renewed_at + self._timing.sweep)
        # A sweep is a wake of its own: a timeout around the waiting costs as much as routing a row.
        sweep = asyncio.get_running_loop().call_later(until - now, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            sweep.cancel()

    async def _read(self, connection: asyncpg.Connection) -> int:
        """Read and route everything unseen; returns the number of rows."""
        position = self._position
        if position is not None and position.reading is None:
            found = await reads.few_unseen_by_tail(connection, position.seen, limit=self._page.rows)
            if found is not None and _follows(position, found.horizon):
                whole = _pass(position, found.horizon)
                await self._route(connection, found.rows, whole)
                self._complete(whole)
                return len(found.rows)
        with self._burst():
            return await self._read_pages(connection, position)

    async def _read_pages(self, connection: asyncpg.Connection, position: Position | None) -> int:
        """The same for the first read, the end of one that was cut, across a restart, and for many rows."""

        @asynccontextmanager
        async def lend() -> AsyncIterator[asyncpg.Connection]:
            yield connection

        if position is None:
            here = (await Walk(lend, Unseen(EVERYTHING), None, self._page).first()).horizon
            before = Pass(here.snapshot, here.taken_at, here.snapshot, here.taken_at, here.incarnation)
            self._position = before.end()
            self._outlet.completed(before)
            self.begun.set()
            return 0
        walk = Walk(
            lend, Unseen(position.seen, position.reading or EVERYTHING, position.after_id), None, self._page
        )
        found = await walk.first()
        if found.horizon.incarnation != position.incarnation:
            if self._timing.ring_until is not None:
                await bells.ring_until(connection, self._timing.ring_until)
            elif self._load.busy:
                await self._end_lease(connection)
            since = position.taken_at - self._overlap
            log.warning("the database restarted; reading again what was written since %s", since.isoformat())
            self._on_restart()
            walk = Walk(lend, Unseen(position.seen, since=since), None, self._page)
            found = await walk.first()
            self._routed_before = self._recent.since(microseconds(since))
            self._pass = all_but(found, before=(*position.before, position))
        elif self._pass is None or position.reading is None:
            # One of which nothing was routed before the connection was lost is forgotten: this read has more.
            self._pass = _pass(position, found.horizon)
        late = found.horizon.taken_at - position.taken_at > LATE
        self._tell_gap(position, found.facts["purged_through"] if late else None)
        rows = found.rows
        count = len(rows)
        await self._route_page(connection, rows, self._pass)
        while walk.more:
            rows = await walk.later()
            count += len(rows)
            self._tell_gap(position, walk.purged_through if late else None)
            await self._route_page(connection, rows, self._pass)
            await asyncio.sleep(0)  # a bulk insert must not keep the sockets waiting
        self._complete(self._pass)
        if position.reading is not None:
            self._wake.set()  # this only ended the pass that had been cut; what is newer comes now
        return count

    def _complete(self, done: Pass) -> None:
        self._outlet.completed(done)
        self._position, self._pass, self._routed_before = done.end(), None, frozenset()

    def _tell_gap(self, position: Position, purged_through: datetime | None) -> None:
        """Tell the outlet when rows that this read should have had may have been removed before it."""
        if purged_through is not None and purged_through > position.taken_at:
            log.warning("retention has removed rows before they were read; every connection begins again")
            self._outlet.overtaken()

    async def _route_page(self, connection: asyncpg.Connection, rows: list[Row], passing: Pass) -> None:
        await self._route(connection, rows, passing)
        if rows:
            self._position = passing.at(rows[-1][1])

    async def _route(self, connection: asyncpg.Connection, rows: list[Row], passing: Pass) -> None:
        users = self._outlet.users
        mine = [row for row in rows if row[0] == "c" or row[3] in users]
        routed: dict[str, list[Message]] = {}
        for row in await membership.admitted(connection, mine):
            kind, row_id, xid, user_id, label, data, created_at, ref = row
            if passing.before and (row_id, created_at) in self._routed_before:
                continue
            if kind == "c":
                repeated = passing.repeats(xid, row_id, created_at)
                self._outlet.obey(replace(_command(label, user_id, ref, data), repeated=repeated))
            else:
                message = reads.message(row)
                if passing.before:
                    repeats = passing.repeats(xid, row_id, created_at)
                    message = message._replace(redelivered=repeats)
                routed.setdefault(user_id, []).append(message)
            self._recent.remember(row_id, created_at)
        for user_id, messages in routed.items():
            self._outlet.route(user_id, messages, passing)


def _follows(position: Position, horizon: Horizon) -> bool:
    """Whether nothing but the rows between the two has to be asked for: no restart, and no retention."""
    is_late = horizon.taken_at - position.taken_at > LATE
    return horizon.incarnation == position.incarnation and not is_late


def _pass(position: Position, horizon: Horizon) -> Pass:
    return Pass(position.seen, position.taken_at, horizon.snapshot, horizon.taken_at, position.incarnation)


def _command(kind: str, user_id: str | None, device_id: int | None, detail: str | None) -> Command:
    match kind:
        case commands.DEVICE_REPLACED if detail is not None:
            return Command(kind, user_id, device_id, generation=int(detail))
        case commands.DISCONNECT if detail is not None:
            return Command(kind, user_id, device_id, revoked_before=float(detail))
        case _:
            return Command(kind, user_id, device_id)


def _line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

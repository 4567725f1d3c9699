"""What one process does at a time for all: expire, purge, forget devices, erase.

Small batches, each a transaction of its own, with a pause between them so that the host's writes come
first. A batch that finds another process at it ends the run: that one does the same.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from app.store import erasure, processes, reports, retention, tickets
from app.store.database import Database
from app.store.retention import Sweep

log = logging.getLogger(__name__)

DAY = 86400.0
TICKETS = 1000
"""How many old tickets go at once."""


@dataclass(frozen=True, slots=True)
class Ages:
    """Seconds after which things go."""

    delivered: float = 7 * DAY
    undelivered: float = 30 * DAY
    dead_letters: float = 90 * DAY
    synced: float = 7 * DAY
    unsynced: float = 30 * DAY
    devices: float = 90 * DAY
    commands: float = 30 * DAY
    processes: float = 60.0
    reporters: float = 30 * DAY


class Sweeps:
    """Walks through the old rows of tables, one after the other."""

    def __init__(self, database: Database, sweeps: Sequence[tuple[Sweep, float]], *, pause: float) -> None:
        self._database = database
        self._sweeps = sweeps
        self._pause = pause

    async def run(self) -> int:
        """Walk once; returns how many rows were changed."""
        return sum([await self._walk(sweep, older_than) for sweep, older_than in self._sweeps])

    async def _walk(self, sweep: Sweep, older_than: float) -> int:
        changed, after_id = 0, 0
        while True:
            async with self._database.driver() as connection:
                done = await sweep.batch(connection, after_id, older_than)
            if done is None:
                return changed
            changed += done.changed
            if done.after_id is None:
                return changed
            after_id = done.after_id
            await asyncio.sleep(self._pause)


class Expire:
    """Gives up what was undelivered for too long."""

    def __init__(self, database: Database, ages: Ages, *, pause: float = 0.02) -> None:
        sweeps = (
            (retention.EXPIRE_EVENTS, ages.undelivered),
            (retention.EXPIRE_SYNC_ROWS, ages.unsynced),
        )
        self._sweeps = Sweeps(database, sweeps, pause=pause)

    async def run(self) -> None:
        """Expire once."""
        if expired := await self._sweeps.run():
            log.warning("%s rows expired undelivered; see realtime_list_dead_letters()", expired)


class Purge:
    """Removes what is kept no longer."""

    def __init__(self, database: Database, ages: Ages, *, pause: float = 0.02) -> None:
        sweeps = (
            # Letters first: an expired event goes with its letter.
            (retention.PURGE_DEAD_LETTERS, ages.dead_letters),
            (retention.PURGE_REDELIVERIES, ages.dead_letters),
            (retention.PURGE_EVENTS, ages.delivered),
            (retention.PURGE_SYNC_ROWS, ages.synced),
            (retention.PURGE_COMMANDS, ages.commands),
        )
        self._database = database
        self._ages = ages
        self._pause = pause
        self._sweeps = Sweeps(database, sweeps, pause=pause)

    async def run(self) -> None:
        """Purge once."""
        async with self._database.driver() as connection:
            await processes.forget_silent(connection, self._ages.processes)
            await reports.forget_silent(connection, self._ages.reporters)
        await self._purge_tickets()
        if purged := await self._sweeps.run():
            log.info("%s rows were kept long enough and are gone", purged)

    async def _purge_tickets(self) -> None:
        """All that are too old, however many: whoever has a token gets as many as he asks for."""
        purged = TICKETS
        while purged == TICKETS:
            async with self._database.driver() as connection:
                purged = await tickets.purge(connection, TICKETS)
            await asyncio.sleep(self._pause)


class ForgetDevices:
    """Removes devices that nobody has seen for long; those connected are kept by `DevicesSeen`."""

    def __init__(self, database: Database, ages: Ages, *, batch: int = 500, pause: float = 0.02) -> None:
        self._database = database
        self._not_seen_for = ages.devices
        self._batch = batch
        self._pause = pause

    async def run(self) -> None:
        """Forget once."""
        forgotten = 0
        while True:
            async with self._database.driver() as connection:
                now = await retention.forget_devices(connection, self._not_seen_for, self._batch)
            forgotten += now or 0
            if now is None or now < self._batch:
                break
            await asyncio.sleep(self._pause)
        if forgotten:
            log.info("%s devices were not seen for long and are forgotten", forgotten)


class Erase:
    """Removes the rows of deleted users."""

    def __init__(
        self, database: Database, *, batch: int = 1000, examined: int = 1000, pause: float = 0.02
    ) -> None:
        self._database = database
        self._batch = batch
        self._examined = examined
        self._pause = pause
        self._looked_through = ""

    async def run(self) -> None:
        """Erase what deletions not seen to yet have left, and look again at some that were."""
        async with self._database.driver() as connection:
            looked_through = await erasure.reopen(connection, self._looked_through, self._examined)
        self._looked_through = looked_through or ""
        erased = 0
        after_id: int | None = 0
        while after_id is not None:
            async with self._database.driver() as connection:
                done = await erasure.erase(connection, after_id, self._batch)
            if done is None:
                break
            erased += done.removed
            after_id = done.after_id
            await asyncio.sleep(self._pause)
        if erased:
            log.info("%s rows of deleted users are gone", erased)

"""Receipts of what has reached its user, collected and written in batches.

Nothing is lost while the database is away: receipts are kept and tried again. What does not fit is
forgotten, oldest first, which costs duplicates and never an event.
"""

import asyncio
import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import TypeVar

import asyncpg

from app.core.messages import RowKey
from app.core.position import Position
from app.outbox.trials import Trials
from app.outbox.unwritten import Unwritten
from app.store import receipts
from app.store.database import UNREACHABLE, Database
from app.store.receipts import DeviceKey
from app.store.redeliveries import Persistence
from app.telemetry.state import State

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")


class Receipts:
    """Collects confirmations; `interval` is the seconds, `batch` the rows, after which they are written.

    `overlap`: of how many seconds before a restart of the database something can be lost with it.
    """

    KEPT = 1_000_000
    """How many unwritten receipts are kept, about 300 bytes each."""

    def __init__(
        self,
        database: Database,
        *,
        interval: float = 0.05,
        batch: int = 500,
        retry: float = 0.5,
        persistence: Persistence | None = None,
        overlap: float = 300.0,
    ) -> None:
        self._database = database
        self._interval = interval
        self._batch = batch
        self._retry = retry
        self._events = Unwritten()
        self._sync_rows = Unwritten()
        self._positions: dict[DeviceKey, Position] = {}
        self._trials = Trials(persistence or Persistence(), kept_for=overlap)
        self._something = asyncio.Event()
        self._enough = asyncio.Event()
        self.written = 0
        """Rows marked since the start."""
        self.failure: str | None = None
        """Why receipts are not being written, in one line."""

    @property
    def unwritten(self) -> int:
        """Rows and positions that wait to be written."""
        return len(self._events) + len(self._sync_rows) + len(self._positions) + len(self._trials)

    def state(self) -> State:
        """For health: degraded while they cannot be written."""
        reasons = (f"receipts: {self.failure}",) if self.failure else ()
        return State({"unwritten": self.unwritten, "written": self.written}, reasons)

    def is_unwritten(self, row: RowKey) -> bool:
        """Whether a row has reached its user although the table does not say so yet."""
        return row in self._events or row in self._sync_rows

    def unwritten_of(self, user_id: str) -> frozenset[RowKey]:
        """Events and sync rows that have reached this user although the tables do not say so yet."""
        return self._events.of(user_id) | self._sync_rows.of(user_id)

    def add(self, user_id: str, events: tuple[RowKey, ...], sync_rows: tuple[RowKey, ...]) -> None:
        """Note that rows have reached their user."""
        if events:
            self._events.add(user_id, events)
        if sync_rows:
            self._sync_rows.add(user_id, sync_rows)
        self._collected()

    def move(self, device: DeviceKey, position: Position) -> None:
        """Note what a device has, by the connection of this generation."""
        self._positions[device] = position
        self._collected()

    def take_over(self, device_id: int, user_id: str, generation: int) -> Position | None:
        """What a device confirmed by its connection before this one, as long as it is not written.

        From here on it counts as confirmed by this one; of an older generation nothing is written.
        """
        position = self._positions.pop((device_id, user_id, generation - 1), None)
        if position is not None:
            self.move((device_id, user_id, generation), position)
        return position

    def settle(self, rows: tuple[RowKey, ...], device_id: int | None) -> None:
        """Note that rows that were to be sent again have been processed."""
        for row in rows:
            self._trials.settle(row, device_id)
        if rows:
            self._collected()

    def refuse(self, row: RowKey, user_id: str, device_id: int | None, reason: str | None) -> None:
        """Note that a row could not be processed, and is to be sent again later; `reason` is storable."""
        self._trials.refuse(row, user_id, device_id, reason)
        self._collected()

    def unwritten_refusals(self, device_id: int | None) -> frozenset[RowKey]:
        """Rows that a reader could not process although the table does not say so yet."""
        return self._trials.refused_by(device_id)

    def left_unacked(self, row: RowKey, user_id: str, device_id: int | None) -> None:
        """Note that a connection ended with this row as the oldest that it had not acknowledged."""
        self._trials.left_unacked(row, user_id, device_id)
        self._collected()

    def database_restarted(self) -> None:
        """See to it that what the database lost with its life before is reported again."""
        self._trials.doubt()
        self._collected()

    def _collected(self) -> None:
        self._something.set()
        if self.unwritten >= self._batch:
            self._enough.set()

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await self._something.wait()
            timer = asyncio.get_running_loop().call_later(self._interval, self._enough.set)
            try:
                await self._enough.wait()
            finally:
                timer.cancel()
            self._something.clear()
            self._enough.clear()
            if not await self._write():
                await asyncio.sleep(self._retry)

    async def flush(self) -> None:
        """Write what is left; what fails twice, and not for a connection that had died, is for a replay."""
        for _ in range(2):
            while self.unwritten and await self._write():
                pass

    async def _write(self) -> bool:
        """Write one batch; whether it is worth going on at once."""
        events, sync_rows = self._events.oldest(self._batch), self._sync_rows.oldest(self._batch)
        positions = dict(islice(self._positions.items(), self._batch))
        try:
            async with self._database.driver() as connection:
                # All of them, and first: those positions pass over what was refused.
                written = await self._trials.write(connection)
                held = await receipts.mark(connection, events, sync_rows, positions)
        except (*UNREACHABLE, asyncpg.PostgresError) as error:
            if self.failure is None:
                log.warning("receipts wait for the database: %s", error)
            self.failure = str(error) or type(error).__name__
            self._forget_beyond_bound()
            self._something.set()
            return False
        self.failure = None
        for pending, rows, left in (
            (self._events, events, held.events),
            (self._sync_rows, sync_rows, held.sync_rows),
        ):
            pending.discard(row for row in rows if row not in left)
            pending.postpone(left)
        _forget(self._positions, positions, held.devices)
        self.written += len(events) + len(sync_rows) - len(held.events) - len(held.sync_rows)
        if self.unwritten:
            self._collected()
        # What is held is tried again with others, or after a pause when there are none.
        return len(held) < len(events) + len(sync_rows) + len(positions) + written

    def _forget_beyond_bound(self) -> None:
        for pending in (self._events, self._sync_rows):
            pending.discard(pending.oldest(len(pending) - self.KEPT))


def _forget(pending: dict[K, V], written: Mapping[K, V], held: AbstractSet[K] = frozenset()) -> None:
    """Forget what was written; what was held goes to the end, so that it keeps no others waiting."""
    for key, value in written.items():
        if key in pending and pending[key] is value:  # else a later one came meanwhile
            del pending[key]
            if key in held:
                pending[key] = value

"""Write down what a client has processed: the rows it names, those its position covers, the position."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.core.messages import RowKey
from app.core.position import Lost, Position
from app.core.token import Token
from app.store import receipts as store
from app.store.database import Database
from app.store.reaching import reaching_the_database
from app.store.reads import horizon
from app.store.sync import named_undelivered, settle_refused
from app.sync.ports import ArchiveOf, Reader, Receipts
from app.sync.who import Who


class PositionLost(Exception):  # noqa: N818 - what the client said, not a mistake
    """The position says nothing of this user here; `why` as in an answer's `reason`."""

    def __init__(self, why: Lost) -> None:
        self.why = why
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Events and sync rows."""

    events: tuple[RowKey, ...]
    sync_rows: tuple[RowKey, ...]

    def __len__(self) -> int:
        return len(self.events) + len(self.sync_rows)


class Acks:
    """Takes acks; what somebody holds is left to the receipts, which try again."""

    def __init__(self, database: Database, archive_of: ArchiveOf, receipts: Receipts) -> None:
        self._database = database
        self._archive_of = archive_of
        self._receipts = receipts

    async def take(self, who: Who, token: Token | None, ids: Sequence[int], epoch: str | None) -> int:
        """Mark what the client has; returns how many rows that changes.

        Of an earlier epoch neither position nor ids mark anything; None: they are of the present one. A
        position whose reader was not sent the sync rows that are for this device marks events only.

        Raises PositionLost, having marked nothing; Interrupted, Unavailable and UserErased.
        """
        if token is not None and not token.is_of(who.user_id):
            raise PositionLost(Lost.MALFORMED)
        reads_as = who if token is None or token.has_sync_of(who.holder) else Who(who.user_id)
        reader = self._archive_of(1).reader(
            who.user_id, takes_sync=reads_as.takes_sync, device_id=reads_as.device_id
        )
        # Only within one incarnation: after a crash the xids can be those of rows that it never got.
        comparable = token is not None and await _is_present(reader, token.position)
        marked = await self._take_named(who, ids, epoch) if ids else 0
        if token is not None and comparable:
            marked += await self._take_covered(reads_as, reader, token.position)
        return marked

    async def _take_covered(self, who: Who, reader: Reader, position: Position) -> int:
        marked = 0
        while covered := _Rows(*await reader.proven(position)):
            # A bounded number at a time. The rows come before the position, so that none is passed over.
            newly = await self._mark(covered, who, None)
            marked += newly
            if not newly:
                break
        stored = None if who.device is None else who.device.position
        if stored is None or not stored.covers(position):
            reached = position if stored is None else stored.advanced_to(position)
            await self._mark(_Rows((), ()), who, reached)
        return marked

    async def _take_named(self, who: Who, ids: Sequence[int], epoch: str | None) -> int:
        with reaching_the_database("an ack cannot be written"):
            async with self._database.driver() as connection:
                # No session outlives an epoch, and from here on rows are known by their times too.
                if epoch is not None and epoch != (await horizon(connection)).incarnation.life:
                    return 0
                named = _Rows(
                    *await named_undelivered(
                        connection, ids, who.user_id, takes_sync=who.takes_sync, device_id=who.device_id
                    )
                )
                settled, held = await settle_refused(connection, ids, who.user_id, who.device_id)
        if held:
            self._receipts.settle(held, who.device_id)
        # What was refused can have reached the user elsewhere: then its record is all that changes.
        return await self._mark(named, who, None) + len({*settled}.difference(named.events, named.sync_rows))

    async def _mark(self, rows: _Rows, who: Who, position: Position | None) -> int:
        device = None if who.device is None else (who.device.id, who.user_id, who.device.generation)
        moves = {} if device is None or position is None else {device: position}
        with reaching_the_database("an ack cannot be written"):
            async with self._database.driver() as connection:
                held = await store.mark(connection, rows.events, rows.sync_rows, moves)
        if held:
            self._receipts.add(who.user_id, tuple(held.events), tuple(held.sync_rows))
        if held.devices and device is not None and position is not None:
            self._receipts.move(device, position)
        return len(rows) - len(held.events) - len(held.sync_rows)


async def _is_present(reader: Reader, position: Position) -> bool:
    """Whether a position is of the present incarnation; raises PositionLost."""
    begun = await reader.start(position, with_undelivered=False)
    if begun.lost is not None:
        raise PositionLost(begun.lost)
    return begun.first.incarnation == position.incarnation

"""What of a read reaches its reader: not every row that it has not seen is for it, or of use to it."""

import asyncpg

from app.store import collapsing, membership, redeliveries
from app.store.reads import Owner, Row, Unseen
from app.store.settling import Settled, settle


class Sieve:
    """Passes the rows of one read, page by page.

    `settles`: what nobody need get any more is written down; a request that may change nothing leaves that
    to those who may.
    """

    def __init__(self, wanted: Unseen, owner: Owner, *, settles: bool) -> None:
        self._wanted = wanted
        self._owner = owner
        self._settles = settles
        self.knows_of_trials = False
        """Whether something was tried in vain for this user, so that rows must be asked about."""
        self.again: frozenset[int] = frozenset()
        """Rows of the last page that the reader was sent before."""

    async def passed(self, connection: asyncpg.Connection, rows: list[Row]) -> list[Row]:
        """Leave out what is withheld, superseded, to be sent again in its own time, or given up."""
        rows = await self.visible(connection, rows)
        superfluous = await collapsing.superseded(connection, rows, self._wanted, self._owner)
        rows = await self._without(connection, rows, superfluous, Settled.COLLAPSED)
        if self.knows_of_trials:
            sifted = await redeliveries.sift(connection, rows, self._owner.device_id)
            rows, self.again = sifted.rows, sifted.again
        return rows

    async def visible(self, connection: asyncpg.Connection, rows: list[Row]) -> list[Row]:
        """Leave out only what the user may not see any more."""
        withheld = await membership.withheld(connection, rows)
        return await self._without(connection, rows, withheld, Settled.LEFT_ROOM)

    async def _without(
        self, connection: asyncpg.Connection, rows: list[Row], ids: frozenset[int], reason: Settled
    ) -> list[Row]:
        if not ids:
            return rows
        if self._settles:
            await settle(connection, ids, reason)
        return [row for row in rows if row[1] not in ids]

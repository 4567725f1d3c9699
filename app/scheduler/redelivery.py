"""Send again what should have arrived: stale rows of users who are connected to this process.

A row is chosen, then looked for in memory, then claimed, so that only what is really sent counts as an
attempt. Passed over is what is on its way, what has arrived but is not written down yet, what the tail
has not routed yet, and whatever nobody here could take: a user who is away or still catching up gets
it from the table. Rows of others are never touched.
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import islice

from app.core.position import Pass
from app.core.session import Phase
from app.scheduler.ports import Connection, Hub, Receipts
from app.store import membership, reads
from app.store.database import Database
from app.store.stale import Candidate, Patience, StaleRows

log = logging.getLogger(__name__)

USERS_AT_ONCE = 200
BYTES_PER_USER = 256 << 10
"""What one round adds at most to what waits for a user; one row always goes."""
BYTES_AT_ONCE = 4 << 20


class Redelivery:
    """Redelivers rows of one table, events or sync rows."""

    def __init__(
        self, rows: StaleRows, database: Database, hub: Hub, receipts: Receipts, patience: Patience
    ) -> None:
        self._rows = rows
        self._database = database
        self._hub = hub
        self._receipts = receipts
        self._patience = patience

    async def run(self) -> None:
        """Look once at everybody who is connected."""
        routed = self._hub.routed
        users = iter([user for user, here in self._hub.users.items() if any(map(self._listens, here))])
        if routed is None:
            return
        while some := list(islice(users, USERS_AT_ONCE)):
            await self._redeliver(some, routed)

    async def _redeliver(self, users: list[str], routed: Pass) -> None:
        async with self._database.driver() as connection:
            # After a crash xids are given out again: what the tail has routed says nothing until it has read.
            if (await reads.horizon(connection)).incarnation != routed.incarnation:
                return
            candidates = await self._rows.candidates(connection, users, self._patience)
            wanted = list(_bounded(row for row in candidates if self._is_wanted(row, routed)))
            claimed = await self._rows.claim(connection, wanted, self._patience) if wanted else []
            claimed = await membership.admitted(connection, claimed)
        for row in claimed:
            user_id, message = row[3], reads.message(row)
            if not self._receipts.is_unwritten(message.key):
                log.info("%s %s is sent again to its user", self._rows.noun, message.id)
                self._hub.redeliver(user_id, message)

    def _listens(self, connection: Connection) -> bool:
        session = connection.session
        return session.phase is Phase.LIVE and (session.takes_sync or not self._rows.mobile_only)

    def _is_wanted(self, row: Candidate, routed: Pass) -> bool:
        if not routed.reading.has(row.xid) or self._receipts.is_unwritten((row.id, row.written_at)):
            return False
        here = [one for one in self._hub.users.get(row.user_id, ()) if self._listens(one)]
        if any(one.session.is_on_its_way(row.id) for one in here):
            return False
        return any(row.origin is None or row.origin != one.device_id for one in here)


def _bounded(rows: Iterable[Candidate]) -> Iterator[int]:
    """Ids of the rows that one round may send, fairly by user."""
    total = 0
    of_user: dict[str, int] = {}
    for row in rows:
        mine = of_user.get(row.user_id, 0)
        if mine and mine + row.size > BYTES_PER_USER:
            continue
        if total and total + row.size > BYTES_AT_ONCE:
            return
        of_user[row.user_id] = mine + row.size
        total += row.size
        yield row.id

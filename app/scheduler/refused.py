"""Send again what clients had and could not process, when its time has come.

Only to a reader that is connected here, fed live and has nothing waiting. Whoever is away, catching up, or
does not take what was sent is looked at again in a second: what it refused stays in the table. The claim ends
before long, so that a row whose reader leaves meanwhile is due to its next connection.
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import islice

from app.core.session import Phase
from app.scheduler.ports import Hub
from app.store import membership, reads, redeliveries
from app.store.database import Database

log = logging.getLogger(__name__)

READERS_AT_ONCE = 1000
ROWS_AT_ONCE = 200
CLAIMED_FOR = 15.0
"""Seconds."""


class Refused:
    """Redelivers the due rows of `realtime_redeliveries`."""

    def __init__(self, database: Database, hub: Hub) -> None:
        self._database = database
        self._hub = hub

    async def run(self) -> None:
        """Look once at everybody who is connected."""
        async with self._database.driver() as connection:
            if not await redeliveries.any_due(connection):
                return
            taking = self._who_takes()
            for some in _batched(taking):
                rows = await redeliveries.claim_due(
                    connection, some, limit=ROWS_AT_ONCE, claimed_for=CLAIMED_FOR
                )
                for row in await membership.admitted(connection, rows):
                    log.info("row %s is sent again after a refusal", row[1])
                    numbers = taking.get((row[3], row["reader"]), set())
                    self._hub.redeliver_to(row[3], numbers, reads.message(row[:8]))

    def _who_takes(self) -> dict[redeliveries.Reader, set[int]]:
        taking: dict[redeliveries.Reader, set[int]] = {}
        for user_id, here in self._hub.users.items():
            for one in here:
                if one.session.phase is Phase.LIVE and not one.session.waiting:
                    taking.setdefault((user_id, one.device_id), set()).add(one.id)
        return taking


def _batched(readers: Iterable[redeliveries.Reader]) -> Iterator[list[redeliveries.Reader]]:
    rest = iter(readers)
    while some := list(islice(rest, READERS_AT_ONCE)):
        yield some

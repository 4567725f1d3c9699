"""A tail that marks rows as delivered before they are sent: what never arrives is never sent again."""

from typing import Any

import asyncpg

from app.bootstrap import outbox
from app.main import create_app
from app.outbox.tail import Tail
from app.store.reads import Row

MARK = "UPDATE realtime_events SET delivered = true, delivered_at = now() WHERE id = ANY($1::bigint[])"


class MarksFirst(Tail):
    """Marks what it is about to hand to the connections of this process."""

    async def _route(self, connection: asyncpg.Connection, rows: list[Row], *rest: Any) -> None:
        users = self._outlet.users
        await connection.execute(MARK, [row[1] for row in rows if row[0] == "e" and row[3] in users])
        await super()._route(connection, rows, *rest)


outbox.Tail = MarksFirst  # type: ignore[misc]
app = create_app()

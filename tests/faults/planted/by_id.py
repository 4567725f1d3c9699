"""A tail that reads `WHERE id > last`: what commits late has an id below, and is never seen."""

from typing import Any

import asyncpg

from app.bootstrap import outbox
from app.main import create_app
from app.outbox.tail import Tail
from app.store.reads import Row


class TailById(Tail):
    """Passes over every row whose id is not above the last."""

    _last = 0

    async def _route(self, connection: asyncpg.Connection, rows: list[Row], *rest: Any) -> None:
        rows = [row for row in rows if row[1] > self._last]
        self._last = max((row[1] for row in rows), default=self._last)
        await super()._route(connection, rows, *rest)


outbox.Tail = TailById  # type: ignore[misc]
app = create_app()

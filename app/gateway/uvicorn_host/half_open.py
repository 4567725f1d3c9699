"""How many connections may owe a request at a time: beyond that, those that owe it longest are dropped.

Whoever means it sends a request at once, and whoever only holds connections open loses his own. But a crowd
that comes back at once is accepted before the first of them has had the time to say anything, or was read:
nobody is dropped within a few seconds, nor while something that he sent waits to be read, as long as memory
allows.
"""

import asyncio
from itertools import islice
from typing import Protocol

GRACE = 3.0
"""Seconds for which a connection may owe a request beside more than there may be for long."""
CROWD = 5
"""How many times as many there may be for that short while."""


class Owing(Protocol):
    """A connection that owes a request."""

    def has_sent(self) -> bool:
        """Whether something that it sent waits to be read."""

    def drop(self) -> None:
        """End it."""


class HalfOpen:
    """Connections that owe a request, in the order in which they began to; at most `most` for long."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._since: dict[Owing, float] = {}
        self._is_looking = False

    def __len__(self) -> int:
        return len(self._since)

    def begin(self, connection: Owing) -> None:
        """Note one that begins to owe a request; soon others may be dropped for it."""
        self._since[connection] = asyncio.get_running_loop().time()
        if len(self._since) > CROWD * self._most:
            oldest = next(iter(self._since))
            del self._since[oldest]
            oldest.drop()
        self._look_later()

    def end(self, connection: Owing) -> None:
        """Forget one that owes nothing any more."""
        self._since.pop(connection, None)

    def _look_later(self) -> None:
        if len(self._since) > self._most and not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(GRACE, self._look)

    def _look(self) -> None:
        self._is_looking = False
        now = asyncio.get_running_loop().time()
        too_many = list(islice(self._since.items(), max(len(self._since) - self._most, 0)))
        for connection, since in too_many:
            if since > now - GRACE:
                break
            del self._since[connection]
            if connection.has_sent():
                self._since[connection] = now
            else:
                connection.drop()
        self._look_later()

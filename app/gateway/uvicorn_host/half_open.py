"""How many connections may owe a request at a time: beyond that, those that owe it longest are dropped.

Whoever means it sends a request at once, and is never among the oldest for long; whoever only holds
connections open loses his own. Of a crowd that comes at once many are accepted before the first is read: a
connection whose request is here and only waits to be read owes nothing.
"""

from typing import Protocol

LOOKS = 8
"""At how many connections one that comes has us look."""


class Owing(Protocol):
    """A connection that owes a request."""

    def has_sent(self) -> bool:
        """Whether something that it sent waits to be read."""

    def drop(self) -> None:
        """End it."""


class HalfOpen:
    """Connections that owe a request, in the order in which they began to; about `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[Owing, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, connection: Owing) -> None:
        """Note one that begins to owe a request; others may be dropped for it."""
        self._waiting[connection] = None
        for _ in range(min(LOOKS, len(self._waiting) - self._most)):
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            if oldest.has_sent():
                self._waiting[oldest] = None  # looked at again after all others
            else:
                oldest.drop()

    def end(self, connection: Owing) -> None:
        """Forget one that owes nothing any more."""
        self._waiting.pop(connection, None)

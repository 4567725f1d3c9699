"""How many connections may owe a request at a time: one more, and the one that owes it longest is dropped.

Whoever means it sends a request at once, and is never among the oldest for long; whoever only holds
connections open loses his own.
"""

from collections.abc import Callable, Hashable


class HalfOpen:
    """Connections that owe a request, in the order in which they began to; at most `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._drops: dict[Hashable, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._drops)

    def begin(self, connection: Hashable, drop: Callable[[], None]) -> None:
        """Note one that begins to owe a request; `drop` ends it, and is called at most once."""
        self._drops[connection] = drop
        if len(self._drops) > self._most:
            self._drops.pop(next(iter(self._drops)))()

    def end(self, connection: Hashable) -> None:
        """Forget one that owes nothing any more."""
        self._drops.pop(connection, None)

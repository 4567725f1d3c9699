"""Rows waiting or in flight, in order, each with the pass that found it, counted in bytes."""

from collections import deque
from collections.abc import Iterator

from app.core.messages import Message
from app.core.position import Pass

Entry = tuple[Message, Pass | None]


class Queue:
    """First in, first out; `size` is the sum of the bodies in bytes, `count` the number of entries.

    Ten thousand connections are idle at any time, so an empty queue holds no deque. Both figures are
    asked for several times with every message, so they are kept and not computed.
    """

    __slots__ = ("_rows", "count", "size")

    def __init__(self) -> None:
        self._rows: deque[Entry] | None = None
        self.count = self.size = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._rows or ())

    def add(self, message: Message, found_by: Pass | None) -> None:
        """Put an entry at the end."""
        if self._rows is None:
            self._rows = deque()
        self._rows.append((message, found_by))
        self.count += 1
        self.size += len(message.body)

    def take(self) -> Entry:
        """Remove the oldest entry; raises IndexError when empty."""
        if self._rows is None:
            raise IndexError("empty")
        entry = self._rows.popleft()
        self.count -= 1
        self.size -= len(entry[0].body)
        if not self._rows:
            self._rows = None
        return entry

    def take_up_to(self, count: int) -> list[Entry]:
        """Remove the oldest entries, so many of them or all."""
        if count < self.count:
            return [self.take() for _ in range(count)]
        entries = list(self)
        self.clear()
        return entries

    def exceeds(self, count: int, size: int) -> bool:
        """Whether there is more than so many entries, or bytes."""
        return self.count > count or self.size > size

    def clear(self) -> None:
        """Forget every entry."""
        self._rows = None
        self.count = self.size = 0

"""Rows of one table that have reached their users although the table does not say so yet."""

from collections.abc import Collection, Iterable
from itertools import islice

from app.core.messages import RowKey


class Unwritten:
    """Rows, the oldest first, and by user."""

    __slots__ = ("_of", "_users")

    def __init__(self) -> None:
        self._users: dict[RowKey, str] = {}
        self._of: dict[str, set[RowKey]] = {}

    def __len__(self) -> int:
        return len(self._users)

    def __contains__(self, row: RowKey) -> bool:
        return row in self._users

    def of(self, user_id: str) -> frozenset[RowKey]:
        """The rows of one user."""
        return frozenset(self._of.get(user_id, ()))

    def oldest(self, count: int) -> list[RowKey]:
        """So many rows, or all."""
        return list(islice(self._users, max(count, 0)))

    def add(self, user_id: str, rows: Collection[RowKey]) -> None:
        """Note rows of one user; what is noted already keeps its place."""
        new = self._of.setdefault(user_id, set())
        for row in rows:
            if self._users.setdefault(row, user_id) == user_id:
                new.add(row)
        if not new:
            del self._of[user_id]

    def discard(self, rows: Iterable[RowKey]) -> None:
        """Forget rows."""
        for row in rows:
            user_id = self._users.pop(row, None)
            if user_id is None:
                continue
            rest = self._of[user_id]
            rest.discard(row)
            if not rest:
                del self._of[user_id]

    def postpone(self, rows: Iterable[RowKey]) -> None:
        """Put rows behind all others, so that they keep none waiting."""
        for row in rows:
            self._users[row] = self._users.pop(row)

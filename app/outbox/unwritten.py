"""Rows of one table that have reached their users although the table does not say so yet."""

from collections.abc import Collection, Iterable
from itertools import islice


class Unwritten:
    """Rows by id, the oldest first, and by user."""

    __slots__ = ("_of", "_users")

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._of: dict[str, set[int]] = {}

    def __len__(self) -> int:
        return len(self._users)

    def __contains__(self, row_id: int) -> bool:
        return row_id in self._users

    def of(self, user_id: str) -> frozenset[int]:
        """The rows of one user."""
        return frozenset(self._of.get(user_id, ()))

    def oldest(self, count: int) -> list[int]:
        """So many rows, or all."""
        return list(islice(self._users, max(count, 0)))

    def add(self, user_id: str, rows: Collection[int]) -> None:
        """Note rows of one user; what is noted already keeps its place."""
        new = self._of.setdefault(user_id, set())
        for row_id in rows:
            if self._users.setdefault(row_id, user_id) == user_id:
                new.add(row_id)
        if not new:
            del self._of[user_id]

    def discard(self, rows: Iterable[int]) -> None:
        """Forget rows."""
        for row_id in rows:
            user_id = self._users.pop(row_id, None)
            if user_id is None:
                continue
            rest = self._of[user_id]
            rest.discard(row_id)
            if not rest:
                del self._of[user_id]

    def postpone(self, rows: Iterable[int]) -> None:
        """Put rows behind all others, so that they keep none waiting."""
        for row_id in rows:
            self._users[row_id] = self._users.pop(row_id)

"""Who waits for something new: user -> requests of this process."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class TooManyWaiting(Exception):  # noqa: N818 - a limit, not a mistake
    """Nobody else may wait; `of_user` says that this user has too many, and not the process."""

    def __init__(self, *, of_user: bool) -> None:
        self.of_user = of_user
        super().__init__("of one user" if of_user else "in this process")


class Waiters:
    """Events to be set when a user gets something; a user for whom nobody waits costs nothing."""

    def __init__(self, *, per_user: int = 20, per_process: int = 5000) -> None:
        self._per_user = per_user
        self._per_process = per_process
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.count = 0
        """Requests that wait."""
        self.released = False
        """Whether nobody is to wait any more, since the process is about to leave."""

    @property
    def users(self) -> Mapping[str, object]:
        """Users for whom a request waits; not to be changed."""
        return self._waiting

    @contextmanager
    def place(self, user_id: str) -> Iterator[asyncio.Event]:
        """Wait among the others: the event is set with all that comes from now on.

        Raises TooManyWaiting.
        """
        if self.count >= self._per_process:
            raise TooManyWaiting(of_user=False)
        mine = self._waiting.setdefault(user_id, set())
        if len(mine) >= self._per_user:
            raise TooManyWaiting(of_user=True)
        told = asyncio.Event()
        mine.add(told)
        self.count += 1
        try:
            yield told
        finally:
            self.count -= 1
            mine.discard(told)
            if not mine:
                del self._waiting[user_id]

    def wake(self, user_id: str) -> None:
        """Tell whoever waits for this user to look."""
        for told in self._waiting.get(user_id, ()):
            told.set()

    def release(self) -> None:
        """Let everybody answer with what they have; who comes later does not wait."""
        self.released = True
        for user_id in self._waiting:
            self.wake(user_id)

"""How many connections a user has to other processes, so that a limit can hold over all of them.

Each process tells with its heartbeat of those who have many there, and hears what the others told. Whoever
has few everywhere is not told of: so it is an approximation, and late by a heartbeat. A user who goes slowly
can have about twice the limit, and one who connects everywhere within a heartbeat the limit at each process.
"""

import heapq
from collections.abc import Iterable, Mapping, Sized

TOLD_AT_MOST = 500
"""Users one process tells of; those with the most connections."""


class Elsewhere:
    """What the other processes told of their users; `per_user` is the limit."""

    def __init__(self, per_user: int) -> None:
        self._per_user = per_user
        self._counts: dict[str, int] = {}
        self._processes = 1

    def of(self, user_id: str) -> int:
        """Connections of a user to other processes, as far as they told."""
        return self._counts.get(user_id, 0)

    def crowds(self, users: Mapping[str, Sized]) -> dict[str, int]:
        """What to tell of this process's users: who has its share of the limit, or two, if that is less."""
        many = max(2, self._per_user // self._processes)
        counts = ((len(connections), user_id) for user_id, connections in users.items())
        crowds = heapq.nlargest(TOLD_AT_MOST, (each for each in counts if each[0] >= many))
        return {user_id: count for count, user_id in crowds}

    def heard(self, told: Iterable[Mapping[str, int]]) -> None:
        """Take what each of the other processes told last; replaces what was heard before."""
        counts: dict[str, int] = {}
        processes = 1
        for crowds in told:
            processes += 1
            for user_id, count in crowds.items():
                counts[user_id] = counts.get(user_id, 0) + count
        self._counts, self._processes = counts, processes

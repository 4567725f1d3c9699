"""Which rows were routed lately, so that a database restart does not repeat them."""

from array import array


class Recent:
    """The last `size` rows by id and creation time in microseconds since 1970, 16 bytes each.

    The time is part of the identity, since a crash can hand the id of a lost row out again.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids = array("q")
        self._times = array("q")
        self._next = 0

    def remember(self, row_id: int, created_at: int) -> None:
        """Note one row; beyond `size` the oldest note makes room."""
        if len(self._ids) < self._size:
            self._ids.append(row_id)
            self._times.append(created_at)
            return
        place = self._next
        self._ids[place] = row_id
        self._times[place] = created_at
        self._next = (place + 1) % self._size

    def since(self, start: int) -> "frozenset[tuple[int, int]]":
        """Every row noted that was created then or later."""
        return frozenset(pair for pair in zip(self._ids, self._times, strict=True) if pair[1] >= start)

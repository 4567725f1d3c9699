"""How a reader of very many rows leaves time to everybody else."""

PAGES_AT_ONCE = 4
"""Pages that are read without a pause: most who come back have missed less."""
LONGEST_PAUSE = 0.05


class Restraint:
    """Has one read take no more than about half of the time; `now` is a monotonic clock's seconds."""

    __slots__ = ("_pages", "_went_on_at")

    def __init__(self) -> None:
        self._pages = 0
        self._went_on_at = 0.0

    def pause(self, now: float) -> float:
        """Seconds to wait before the next page: as long as the last one took, to be read and sent."""
        self._pages += 1
        pause = 0.0 if self._pages <= PAGES_AT_ONCE else min(now - self._went_on_at, LONGEST_PAUSE)
        self._went_on_at = now + pause
        return pause

"""Rows per second, smoothed, with two thresholds so that it does not flicker."""


class Load:
    """Whether a process is busy; the thresholds are rows per second, times are seconds."""

    HALF_LIFE = 0.25

    def __init__(self, *, busy_above: float, busy_below: float) -> None:
        self._above = busy_above
        self._below = busy_below
        self._rate = 0.0
        self._at: float | None = None
        self.busy = False

    @property
    def rate(self) -> float:
        """The smoothed rate when it was last observed."""
        return self._rate

    def observe(self, rows: int, now: float) -> bool:
        """Count rows that came since the last call; returns whether the process is busy."""
        if self._at is not None and now > self._at:
            elapsed = now - self._at
            weight = 0.5 ** (elapsed / self.HALF_LIFE)
            self._rate = self._rate * weight + rows / elapsed * (1 - weight)
        self._at = now
        self.busy = self._rate > (self._below if self.busy else self._above)
        return self.busy

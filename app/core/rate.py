"""Rows per second, smoothed, and whether a process had better read for many rows at once."""

AT_LEAST = 50.0
"""Rows per second below which a process is never busy, however slow its database."""
MANY = 1000.0
"""Rows per second from which on it waits for many rows as long as it may."""
RESTS = 3.0
"""How many times as long as a read takes it waits then, up to LONGEST_PAUSE."""
LONGEST_PAUSE = 0.02
"""Seconds."""


class Load:
    """Whether a process is busy, by what reading for each row on its own would take of its time.

    That follows the machine, where a number of rows would be too high for a slow one: bells that ring slow
    the writers down, and keep them below it. Two thresholds, shares of the time, so that it does not flicker.
    """

    HALF_LIFE = 0.25

    def __init__(self, *, busy_above: float, busy_below: float) -> None:
        self._above = busy_above
        self._below = busy_below
        self._rate = 0.0
        self._took = 0.0
        self._at: float | None = None
        self.busy = False

    @property
    def rate(self) -> float:
        """The smoothed rate when it was last observed, in rows per second."""
        return self._rate

    def pause(self, usual: float) -> float:
        """Seconds between two reads of a busy process: rows that come one by one are not kept waiting.

        Where reading takes long it waits for longer than usual: each read has its price, however many rows.
        """
        return max(usual, min(RESTS * self._took, LONGEST_PAUSE)) * min(self._rate / MANY, 1.0)

    def observe(self, rows: int, took: float, now: float) -> bool:
        """Count rows that a read of `took` seconds found; returns whether the process is busy."""
        if self._at is not None and now > self._at:
            elapsed = now - self._at
            weight = 0.5 ** (elapsed / self.HALF_LIFE)
            self._rate = self._rate * weight + rows / elapsed * (1 - weight)
            self._took = self._took * weight + took * (1 - weight)
        self._at = now
        threshold = self._below if self.busy else self._above
        self.busy = self._rate > AT_LEAST and self._rate * self._took > threshold
        return self.busy

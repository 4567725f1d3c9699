"""How often each of many may do something: a bucket per key that fills again at a steady rate.

It remembers one time per key (GCRA: when its bucket will be full again), and forgets keys whose bucket is.
"""


class Allowance:
    """Lets each key through `most` times at once and per `period` seconds; told the time.

    At most `keys` keys are remembered; beyond that the one that came longest ago is forgotten.
    """

    def __init__(self, most: int, period: float, *, keys: int = 50_000) -> None:
        self._step = period / most
        self._period = period
        self._keys = keys
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, now: float) -> float:
        """Count one, unless it is too many; returns seconds until the next may come, 0 when this one may."""
        too_early = self.wait(key, now)
        if too_early:
            return too_early
        full_at = max(self._full_at.pop(key, now), now) + self._step
        self._full_at[key] = full_at
        self._forget(now)
        return 0.0

    def wait(self, key: str, now: float) -> float:
        """Seconds until the next may come, 0 when it may now; counts nothing."""
        too_early = max(self._full_at.get(key, now), now) + self._step - now - self._period
        return too_early if too_early > self._step / 1000 else 0.0  # else sums of floats refuse the last one

    def _forget(self, now: float) -> None:
        """Forget two for each that is remembered, so that what is left behind never outgrows what comes."""
        for _ in range(2):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= self._keys:
                return
            del self._full_at[oldest]

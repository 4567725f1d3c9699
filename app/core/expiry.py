"""When a connection's token expires, and when its client is to be told of that."""

NOTICE = 60.0
"""Seconds before the end at which the client is told."""


class Expiry:
    """The end of a token; `at` and every `now` are seconds of one clock."""

    __slots__ = ("_told", "_warn_at", "at", "is_being_renewed")

    def __init__(self, at: float) -> None:
        self.at = at
        self.is_being_renewed = False
        """Whether a new token is being looked at."""
        self._told = False
        self._warn_at = at - NOTICE

    def renew(self, at: float, now: float) -> None:
        """Take the end of a new token. A short-lived one is told of in its half, or nobody could rest."""
        self.at = at
        self._told = False
        self._warn_at = max(at - NOTICE, min(now + (at - now) / 2, at))

    def deadline(self) -> float:
        """When something is to be done next."""
        return self.at if self._told else min(self._warn_at, self.at)

    def is_over(self, now: float) -> bool:
        """Whether the token has expired."""
        return now >= self.at

    def warns(self, now: float) -> bool:
        """Whether the client is to be told now; once for each token."""
        if self._told or now < self._warn_at:
            return False
        self._told = True
        return True

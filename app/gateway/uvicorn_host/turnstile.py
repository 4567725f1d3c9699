"""Lets those who have just connected in a few at a time, so that a crowd keeps nobody else waiting.

A handshake takes the loop about a millisecond. When thousands come at once, the loop would see to all of them
before it looks at anything else again.
"""

import asyncio
from collections import deque
from collections.abc import Callable

AT_ONCE = 8
PAUSE = 0.01
"""Seconds between two turns. A loop that is behind comes to them later, and lets in fewer."""


class Turnstile:
    """Lets `AT_ONCE` in per turn, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._free = AT_ONCE
        self._turns = False

    def lets_in(self, enter: Callable[[], None]) -> bool:
        """Whether somebody may enter now; else `enter` is called when it is his turn."""
        if not self._turns:
            self._turns = True
            asyncio.get_running_loop().call_later(PAUSE, self._turn)
        if self._free and not self._waiting:
            self._free -= 1
            return True
        self._waiting.append(enter)
        return False

    def _turn(self) -> None:
        self._free = AT_ONCE
        self._turns = bool(self._waiting)
        if self._turns:
            asyncio.get_running_loop().call_later(PAUSE, self._turn)
        while self._free and self._waiting:
            self._free -= 1
            self._waiting.popleft()()

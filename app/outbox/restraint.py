"""How a reader of very many rows leaves time to everybody else.

What follows the first page comes in small parts, so that nobody waits long for the end of one, and after each
the reader rests. By how long the part took to be read that follows the machine, and how busy it is: what it
costs to send the part, and to write down that it came, is about as much again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Restraint:
    """How much is read at once after the first page, and how long a reader waits in between.

    `part`: rows, None for a page's; `rests`: how many times as long as the part took to be read, `longest`
    seconds at most; `wait` is how that is done, for so many seconds.
    """

    part: int | None = 100
    rests: float = 8.0
    longest: float = 0.05
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep

    def rest(self, took: float) -> float:
        """Seconds to wait after a part that took so many seconds to be read."""
        return min(self.rests * took, self.longest)


UNRESTRAINED = Restraint(part=None, rests=0.0)
"""For an answer that has a bound of its own, and somebody who waits for it."""

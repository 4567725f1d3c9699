"""When connections are to look at the time again, in steps: one timer for all of them.

A timer of the loop for each costs more than all else that a message asks of a connection, and a quarter of a
kilobyte while nothing happens.
"""

import asyncio
from heapq import heappop, heappush
from math import ceil, inf
from typing import Protocol

STEP = 0.05
"""Seconds by which somebody is called late at most, unless the loop is or a crowd is due."""
GRAIN = 0.001
"""Seconds by which a timer of the loop may come early, as uvloop's do: they know whole milliseconds."""
AT_ONCE = 10
"""How many are called before the loop has a turn: a crowd that came together is due together."""


class Timed(Protocol):
    """Whoever is to look at the time."""

    def on_time(self) -> None:
        """Look at the time; the moment that was asked for has come."""

    def abandon(self, fault: Exception) -> None:
        """Give up, since looking at the time failed; raises nothing."""


class Wheel:
    """Calls each of those who asked at about the moment that they asked for; moments are the loop's clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Timed]] = {}
        self._ahead: list[int] = []  # the slots, as a heap
        self._timer: asyncio.TimerHandle | None = None
        self._turns_at = inf

    def set(self, who: Timed, at: float) -> int:
        """Call somebody once; returns the slot, by which that can be taken back."""
        slot = ceil(at / STEP)
        waiting = self._slots.get(slot)
        if waiting is None:
            waiting = self._slots[slot] = set()
            heappush(self._ahead, slot)
            if slot < self._turns_at:
                self._turn_at(slot)
        waiting.add(who)
        return slot

    def unset(self, who: Timed, slot: int) -> None:
        """Do not call somebody, or nothing when that was done."""
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting.discard(who)

    def _turn_at(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._turns_at = slot
        self._timer = self._loop.call_at(slot * STEP + GRAIN, self._turn)

    def _turn(self) -> None:
        self._timer = None
        self._turns_at = -inf  # whatever is set meanwhile is seen to at the end
        now = self._loop.time() / STEP
        left = AT_ONCE
        while self._ahead and self._ahead[0] <= now:
            slot = heappop(self._ahead)
            waiting = self._slots[slot]
            while waiting and left:
                left -= 1
                self._call(waiting.pop())
            if waiting:
                heappush(self._ahead, slot)
                self._loop.call_soon(self._turn)
                return
            del self._slots[slot]
        self._turns_at = inf
        if self._ahead:
            self._turn_at(self._ahead[0])

    def _call(self, who: Timed) -> None:
        try:
            who.on_time()
        except Exception as fault:  # noqa: BLE001 - whatever it is
            who.abandon(fault)

"""Ctrl-C and its kind: noted whenever they come, raised only where the demo waits.

An exception out of a signal handler hits whatever runs: the line between the start of a child and the one
that remembers it, a lock that `subprocess` has just taken, the driver's C code, the taking down. What
starts and what ends things is therefore never interrupted; what waits asks `check` again and again.
"""

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL = 0.05
"""Seconds between two looks at what is waited for, and at whether a signal has come."""


class Stopped(Exception):  # noqa: N818 - not an error
    """Somebody asked the demo to end."""


class Stops:
    """Takes the signals from its making on."""

    def __init__(self) -> None:
        self._asked = False
        for each in SIGNALS:
            signal.signal(each, self._note)

    def check(self) -> None:
        """Raise Stopped when a signal has come."""
        if self._asked:
            raise Stopped

    async def unless_asked(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work to its end; raises Stopped when it had to be cancelled for a signal."""
        task = asyncio.ensure_future(work)
        while not task.done() and not self._asked:
            await asyncio.wait([task], timeout=POLL)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            raise Stopped from None

    @staticmethod
    def ignore() -> None:
        """Ignore signals from now on: nothing is left to end but the interpreter, which would die of one."""
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)

    def _note(self, signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's
        self._asked = True

"""One shape for everything that runs for as long as the process does.

A part may be stopped before it was started, and twice. Should its loop fail by a mistake of ours, the
cause is logged and it is started again: a fault must not silence a process that looks healthy.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from app.telemetry.state import State

log = logging.getLogger(__name__)

TOLD_FOR = 60.0
"""Seconds for which health tells of a fault; a part that fails at once fails again and again."""


class Part:
    """A named loop; `run` goes on until cancelled. `restart_after` is in seconds."""

    def __init__(self, name: str, run: Callable[[], Awaitable[None]], *, restart_after: float = 1.0) -> None:
        self.name = name
        self._failed_at: float | None = None
        self._run = run
        self._restart_after = restart_after
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; nothing to do when it runs."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_running(), name=self.name)

    def state(self) -> State:
        """For health: degraded after a mistake of ours; the log has the cause."""
        if self._failed_at is None or time.monotonic() - self._failed_at > TOLD_FOR:
            return State()
        return State(reasons=(f"{self.name}: failed by a mistake of the service's own; see its log",))

    async def stop(self) -> None:
        """End, and wait until it has ended."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _keep_running(self) -> None:
        while True:
            try:
                await self._run()
            except Exception:
                self._failed_at = time.monotonic()
                log.exception("%s failed and is started again", self.name)
            await asyncio.sleep(self._restart_after)

"""What happens on SIGTERM and SIGINT: stop accepting, drain, let uvicorn finish, exit with 0.

uvicorn's own handler would close every connection at once, wait for ever on a peer that does not read, and
raise the signal again when it is done, which ends the process with 143.
"""

import asyncio
import logging
import multiprocessing
import signal
import time
from collections.abc import Awaitable, Callable
from types import FrameType

from . import inside
from .options import HostOptions

SIGNALS = (signal.SIGTERM, signal.SIGINT)
REPEATED_AFTER = 2.0
"""Seconds. One request to stop reaches a worker twice when it is sent to the whole group, since uvicorn's
supervisor passes it on within 0.5 s."""

logger = logging.getLogger(__name__)


class GentleShutdown:
    """Takes the place of uvicorn's signal handler; the second signal of a kind ends everything at once."""

    def __init__(
        self,
        server: inside.Server,
        loop: asyncio.AbstractEventLoop,
        drain: Callable[[], Awaitable[None]],
        options: HostOptions,
    ) -> None:
        self._server = server
        self._loop = loop
        self._drain = drain
        self._options = options
        self._received: dict[int, float] = {}
        self._task: asyncio.Task[None] | None = None

    def install(self) -> None:
        """Take the signals over. Raises ValueError outside the main thread."""
        for each in SIGNALS:
            signal.signal(each, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        now = time.monotonic()
        if not self._received:
            self._loop.call_soon_threadsafe(self._begin)
        elif number in self._received and now - self._received[number] >= self._repeated_after():
            self._loop.call_soon_threadsafe(self._force)
        self._received.setdefault(number, now)

    @staticmethod
    def _repeated_after() -> float:
        return REPEATED_AFTER if multiprocessing.parent_process() else 0.0

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        inside.stop_accepting(self._server)
        try:
            async with asyncio.timeout(self._options.drain_timeout):
                await self._drain()
        except TimeoutError:
            logger.warning("the drain was not done after %.1f s", self._options.drain_timeout)
        except Exception:
            logger.exception("the drain failed")
        inside.request_exit(self._server)
        await asyncio.sleep(self._options.leftover_timeout)
        inside.abort_connections(self._server)

    def _force(self) -> None:
        logger.warning("second signal: leaving without waiting")
        if self._task is not None:
            self._task.cancel()
        inside.request_exit(self._server, force=True)
        inside.abort_connections(self._server)

"""Which sockets have something to write when this turn of the loop ends: one callback for all of them."""

import asyncio
import logging
from contextlib import suppress
from typing import Protocol

log = logging.getLogger(__name__)


class Writing(Protocol):
    """A socket that collects what one turn sends."""

    def flush(self) -> None:
        """Write it."""

    def abort(self) -> None:
        """Drop the connection, since writing failed."""


class EndOfTurn:
    """Calls each socket that asked once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sockets: list[Writing] = []

    def add(self, socket: Writing) -> None:
        """Have a socket write at the end of this turn."""
        if not self._sockets:
            self._loop.call_soon(self._flush)
        self._sockets.append(socket)

    def _flush(self) -> None:
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            try:
                socket.flush()
            except Exception:
                # One's fault must not reach the others.
                log.exception("a connection could not be written to")
                with suppress(Exception):
                    socket.abort()

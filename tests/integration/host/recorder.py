"""What a socket told its connection, for a test to wait for."""

import asyncio
from collections.abc import Callable
from typing import Any

from app.gateway.socket import Socket

PATIENCE = 10.0


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for what uvicorn tells nobody about. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Recorder:
    """A connection that only writes down what it is told."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.told: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    async def next(self) -> tuple[str, Any]:
        """What it is told next."""
        return await asyncio.wait_for(self.told.get(), PATIENCE)

    def on_text(self, text: str) -> None:
        self.told.put_nowait(("text", text))

    def on_binary(self, size: int) -> None:
        self.told.put_nowait(("binary", size))

    def on_too_large(self) -> None:
        self.told.put_nowait(("too_large", None))

    def on_pong(self) -> None:
        self.told.put_nowait(("pong", None))

    def on_writable(self) -> None:
        self.told.put_nowait(("writable", None))

    def on_closed(self, code: int | None) -> None:
        self.told.put_nowait(("closed", code))

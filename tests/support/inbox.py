"""What a client got, and waiting for it: the same on every transport."""

import asyncio
from collections.abc import Callable
from typing import Any, Self

from tests.support.server import PATIENCE

Event = dict[str, Any]


class Inbox:
    """Messages as they came; whoever fills it says when it changed and how it ended."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.messages: list[Event] = []

    @property
    def end(self) -> str | None:
        """How it ended; None while it stands."""
        raise NotImplementedError

    @property
    def events(self) -> list[Event]:
        """Events and sync rows, in the order they came."""
        return [message for message in self.messages if "id" in message]

    @property
    def ids(self) -> list[int]:
        """Their ids."""
        return [message["id"] for message in self.events]

    async def until(self, met: Callable[[Self], object], *, within: float = PATIENCE) -> None:
        """Wait until something is true of it; fails with what came instead."""
        try:
            async with asyncio.timeout(within):
                while not met(self):
                    assert self.end is None, f"{self.end} after {self.messages[-5:]}"
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"after {within} s it has {len(self.messages)}: {self.messages[-5:]}"
            ) from None

    async def got(self, count: int, *, within: float = PATIENCE) -> list[Event]:
        """Wait until so many events and sync rows came; return them."""
        await self.until(lambda inbox: len(inbox.ids) >= count, within=within)
        return self.events

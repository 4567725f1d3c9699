"""Plays an app: one WebSocket of one user, with the time at which each message arrived."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from demo.options import DemoError

PATIENCE = 10.0
"""Seconds until a message that was promised has to be there."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message and when it arrived, in seconds of `time.perf_counter`."""

    message: dict[str, Any]
    at: float

    @property
    def id(self) -> int:
        """The event's id."""
        return int(self.message["id"])

    @property
    def kind(self) -> str:
        """The message's type."""
        return str(self.message["type"])

    @property
    def summary(self) -> str:
        """What the message says besides its type: no message carries private text."""
        shown = ("mood_score", "message_id", "entry_id")
        data = self.message.get("data", {})
        return ", ".join(f"{name} {data[name]}" for name in shown if name in data)


def address(port: int, user: str) -> str:
    """Where a user's messages come from."""
    return f"ws://127.0.0.1:{port}/realtime/ws?user_id={quote(user, safe='')}"


class Client:
    """A connected client; messages are taken as they come, also while nobody asks for them."""

    def __init__(self, user: str, socket: ClientConnection) -> None:
        self.user = user
        self._socket = socket
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()

    @classmethod
    @asynccontextmanager
    async def connect(cls, port: int, user: str) -> AsyncIterator["Client"]:
        """Connect while the block runs; the `connected` message has come when it begins."""
        async with connect(address(port, user)) as socket:
            client = cls(user, socket)
            reading = asyncio.create_task(client._read())
            try:
                await client.next_of("connected")
                yield client
            finally:
                reading.cancel()

    async def next_of(self, kind: str) -> Arrival:
        """Wait for the next message, which has to be of this kind; raises DemoError."""
        try:
            async with asyncio.timeout(PATIENCE):
                arrival = await self._arrivals.get()
        except TimeoutError:
            raise DemoError(f"{self.user} got no {kind} within {PATIENCE:.0f} s") from None
        if arrival.kind != kind:
            raise DemoError(f"{self.user} got {arrival.message} instead of a {kind}")
        return arrival

    def everything_else(self) -> list[Arrival]:
        """Take what has come and nobody has asked for."""
        return [self._arrivals.get_nowait() for _ in range(self._arrivals.qsize())]

    async def _read(self) -> None:
        try:
            async for text in self._socket:
                self._arrivals.put_nowait(Arrival(json.loads(text), time.perf_counter()))
        except ConnectionClosed:
            return

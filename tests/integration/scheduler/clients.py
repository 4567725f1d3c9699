"""Clients of a service in this process: they see every message, and answer pings or do not."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from app.bootstrap.service import Service
from app.core.session import Phase
from app.gateway.socket import EXTENSION, OpenEvents, SocketEvents
from app.gateway.websocket import PATH

PATIENCE = 20.0
"""Seconds that a test waits for what should happen at once."""


class Client:
    """The socket of one connection and the peer behind it; `mute` ones answer no ping."""

    confirms = True
    writable = True
    beside = None

    def __init__(self, *, mute: bool = False) -> None:
        self.mute = mute
        self.messages: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self.asked = 0
        self._events: SocketEvents | None = None
        self._changed = asyncio.Event()

    def attach(self, open_events: OpenEvents) -> None:
        self._events = open_events(self)

    def send(self, message: bytes) -> None:
        self.messages.append(json.loads(message))
        self._changed.set()

    def ping(self) -> None:
        self.asked += 1
        self._changed.set()
        if not self.mute:
            self.answer()

    def flush(self) -> None:
        """It has everything already."""

    def close(self, code: int, reason: str = "") -> None:
        self.close_code = code
        self._changed.set()
        self._tell(lambda events: events.on_closed(code))

    def abort(self) -> None:
        self._changed.set()
        self._tell(lambda events: events.on_closed(None))

    def answer(self) -> None:
        """Answer the last ping."""
        self._tell(lambda events: events.on_pong())

    def leave(self) -> None:
        """Drop the connection."""
        self._tell(lambda events: events.on_closed(1005))

    @property
    def ids(self) -> list[int]:
        """Ids of the events and sync rows it got, in the order they came."""
        return [message["id"] for message in self.messages if "id" in message]

    async def until(self, met: Callable[["Client"], bool]) -> None:
        """Wait until something is true of this client."""
        async with asyncio.timeout(PATIENCE):
            while not met(self):
                self._changed.clear()
                await self._changed.wait()

    def _tell(self, what: Callable[[SocketEvents], None]) -> None:
        if self._events is not None:
            asyncio.get_running_loop().call_soon(what, self._events)


async def connect(
    service: Service, user_id: str, *, device_token: str | None = None, mute: bool = False
) -> Client:
    """Connect as a user, with a device where its token is given; return when `connected` was said."""
    client = Client(mute=mute)
    query = {"user_id": user_id} | ({} if device_token is None else {"device_token": device_token})
    scope = {
        "type": "websocket",
        "path": PATH,
        "query_string": urlencode(query).encode(),
        "headers": [],
        "extensions": {EXTENSION: client.attach},
    }

    messages = [{"type": "websocket.connect"}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        assert message["type"] == "websocket.accept"

    await service.websocket(scope, receive, send)
    await client.until(lambda c: bool(c.messages))
    return client


async def connect_live(service: Service, user_id: str, *, device_token: str | None = None) -> Client:
    """Connect, and wait until the connection is fed by the tail."""
    client = await connect(service, user_id, device_token=device_token)
    await eventually(lambda: is_live(service, user_id))
    return client


async def is_live(service: Service, user_id: str) -> bool:
    """Whether all connections of a user are live, and the tail has routed what there was."""
    connections = service.hub.of(user_id)
    return service.hub.routed is not None and all(one.session.phase is Phase.LIVE for one in connections)


async def eventually(met: Callable[[], Awaitable[object]], *, within: float = PATIENCE) -> None:
    """Wait until something is true that nobody tells."""
    async with asyncio.timeout(within):
        while not await met():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)

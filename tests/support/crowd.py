"""Many clients at once, each no more than a TCP connection that is read, answers pings and echoes a close."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.frames import Frame, Opcode

from tests.support.client import Address, target
from tests.support.server import PATIENCE

AT_ONCE = 100
"""Handshakes under way at a time."""


class Member(asyncio.Protocol):
    """One client of the crowd; times are of the monotonic clock."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.messages: list[dict[str, Any]] = []
        self.close_code: int | None = None
        """That of the close frame; None while it stands, and when it was dropped without one."""
        self.closed_at: float | None = None
        loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._data = b""

    @property
    def after_ms(self) -> int | None:
        """When it is to come back, once it was told."""
        told = [message["after_ms"] for message in self.messages if message["type"] == "reconnect"]
        return told[0] if told else None

    @property
    def ids(self) -> list[int]:
        """Ids of the events it has got."""
        return [message["id"] for message in self.messages if "id" in message]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(
            f"GET {target(user_id=self.user_id)} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.connected.done():
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            self._data = rest
            if head.startswith(b"HTTP/1.1 101"):
                self.connected.set_result(None)
            else:
                self.connected.set_exception(AssertionError(head))
        while self._take_frame():
            pass

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.connected.done():
            self.connected.set_exception(ConnectionError("dropped in the handshake"))
        if not self.ended.done():
            self.ended.set_result(None)

    def _take_frame(self) -> bool:
        data, start = self._data, 2
        if len(data) < start:
            return False
        size = data[1]
        if size == 126:
            size, start = int.from_bytes(data[2:4]), 4
        if len(data) < start + size:
            return False
        payload, self._data = data[start : start + size], data[start + size :]
        match data[0] & 0x0F:
            case Opcode.TEXT:
                self.messages.append(json.loads(payload))
            case Opcode.PING:
                self.transport.write(Frame(Opcode.PONG, payload).serialize(mask=True))
            case Opcode.CLOSE:
                self.close_code, self.closed_at = int.from_bytes(payload[:2]), time.monotonic()
                self.transport.write(Frame(Opcode.CLOSE, payload).serialize(mask=True))
        return True


@asynccontextmanager
async def crowd(address: Address, user_ids: list[str]) -> AsyncIterator[list[Member]]:
    """Connect one member per user id given; all have `connected` when this begins, and are gone after it."""
    loop = asyncio.get_running_loop()
    members: list[Member] = []
    try:
        for first in range(0, len(user_ids), AT_ONCE):
            for name in user_ids[first : first + AT_ONCE]:
                _, member = await loop.create_connection(lambda name=name: Member(name), *address)
                members.append(member)
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(member.connected for member in members[first:]))
        await until_all(members, lambda member: member.messages)
        yield members
    finally:
        for member in members:
            member.transport.abort()


async def until_all(members: list[Member], met: Callable[[Member], object]) -> None:
    """Wait until something is true of every member."""
    async with asyncio.timeout(PATIENCE):
        while not all(met(member) for member in members):  # noqa: ASYNC110 - as many events
            await asyncio.sleep(0.02)

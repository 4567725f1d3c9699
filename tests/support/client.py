"""Clients of the service over real sockets: one as users have it, and one that does only what it is told.

`Client` is the `websockets` library's, which reads all the time and answers pings by itself. `RawClient` is a
TCP connection that reads when asked and answers nothing: it can be slow, stuck, rude, or gone.
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from tests.support.inbox import Event, Inbox
from tests.support.server import PATIENCE

PATH = "/realtime/ws"
Address = tuple[str, int]


def target(**query: str) -> str:
    """The path to connect to; values are quoted."""
    return f"{PATH}?{urlencode(query)}" if query else PATH


class Client(Inbox):
    """A connection that writes down every message, and how it ended."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__()
        self._connection = connection
        self.frames: list[str | bytes] = []
        """What came, as it came."""
        self.arrived: list[float] = []
        """When each message came, on the monotonic clock."""
        self.close_code: int | None = None
        """How it ended, None while it stands; 1006 without a close frame."""
        self._reading = asyncio.create_task(self._read())

    @property
    def end(self) -> str | None:
        """How it ended; None while it stands."""
        return None if self.close_code is None else f"closed with {self.close_code}"

    @property
    def subprotocol(self) -> str | None:
        """The one of those offered that the server took."""
        return self._connection.subprotocol

    async def send(self, message: str | bytes) -> None:
        """Send a message as it is."""
        await self._connection.send(message)

    async def ask(self) -> None:
        """Send a heartbeat and wait for its answer, behind which nothing of before is still on its way."""
        before = self._pongs()
        await self.send("ping")
        await self.until(lambda client: client._pongs() > before)

    async def ended(self, *, within: float = PATIENCE) -> int:
        """Wait until the server has closed it; return the close code."""
        async with asyncio.timeout(within):
            await asyncio.shield(self._reading)
        assert self.close_code is not None
        return self.close_code

    async def close(self) -> None:
        """Leave politely."""
        await self._connection.close()
        await self._reading

    async def vanish(self) -> None:
        """Leave by a reset, without a close frame."""
        reset(self._connection.transport)
        await self._reading

    async def _read(self) -> None:
        try:
            async for frame in self._connection:
                self.arrived.append(time.monotonic())
                self.frames.append(frame)
                self.messages.append(json.loads(frame))
                self._changed.set()
        except ConnectionClosed:
            pass
        finally:
            self.close_code = self._connection.close_code or 1006
            self._changed.set()

    def _pongs(self) -> int:
        return sum(message["type"] == "pong" for message in self.messages)


async def open_client(
    address: Address,
    headers: dict[str, str] | None = None,
    /,
    subprotocols: Sequence[str] = (),
    **query: str,
) -> Client:
    """Connect as a user with the `websockets` library; raises InvalidStatus when refused before the accept."""
    url = "ws://{}:{}{}".format(*address, target(**query))
    return Client(
        await connect(
            url,
            additional_headers=headers,
            subprotocols=[Subprotocol(one) for one in subprotocols] or None,
            proxy=None,
            compression=None,
            open_timeout=PATIENCE,
            ping_interval=None,
            max_queue=None,
            max_size=None,
            close_timeout=PATIENCE,
        )
    )


class RawClient:
    """One TCP connection; it reads when asked and never answers a ping by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.pings: list[bytes] = []
        """Payloads of the pings it has read."""
        self.messages: list[Event] = []
        """Messages it has read."""

    @property
    def ids(self) -> list[int]:
        """Ids of the events and sync rows it has read."""
        return [message["id"] for message in self.messages if "id" in message]

    async def handshake(self, path: str, *headers: str) -> bytes:
        """Send the request; return the head of the response."""
        head = [
            f"GET {path} HTTP/1.1",
            "Host: localhost",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            *headers,
        ]
        self.send_bytes("\r\n".join([*head, "", ""]).encode())
        return await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), PATIENCE)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    def send(self, opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> None:
        """Send one masked frame."""
        self.send_bytes(Frame(opcode, data, fin).serialize(mask=True))

    def say(self, text: str) -> None:
        """Send one text message."""
        self.send(Opcode.TEXT, text.encode())

    def answer(self) -> None:
        """Answer the last ping read, which stands for those before it too."""
        self.send(Opcode.PONG, self.pings[-1])

    async def read_frame(self) -> tuple[int, bytes]:
        """Read one frame; raises EOFError (IncompleteReadError) at the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readexactly(2)
            assert head[0] & 0x80, "the server does not fragment"
            size = head[1]
            if size == 126:
                size = int.from_bytes(await self._reader.readexactly(2))
            elif size == 127:
                size = int.from_bytes(await self._reader.readexactly(8))
            payload = await self._reader.readexactly(size)
        if head[0] & 0x0F == Opcode.PING:
            self.pings.append(payload)
        if head[0] & 0x0F == Opcode.TEXT:
            self.messages.append(json.loads(payload))
        return head[0] & 0x0F, payload

    async def read_message(self, *, answering: bool = False) -> Event:
        """Read up to the next message, and answer the pings before it when told to."""
        while True:
            opcode, payload = await self.read_frame()
            if opcode == Opcode.TEXT:
                return self.messages[-1]
            assert opcode == Opcode.PING, (opcode, payload)
            if answering:
                self.answer()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Read and answer pings until the server closes, as a client of the usual kind does."""

        async def read() -> None:
            while (await self.read_frame())[0] != Opcode.CLOSE:
                if self.pings:
                    self.answer()
                    self.pings.clear()

        task = asyncio.create_task(read())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def read_close(self) -> tuple[int, str]:
        """Read up to the close frame, answering nothing; return its code and reason."""
        while (frame := await self.read_frame())[0] != Opcode.CLOSE:
            pass
        return int.from_bytes(frame[1][:2]), frame[1][2:].decode()

    async def read_until(self, mark: bytes) -> bytes:
        """Read up to a mark and with it."""
        return await asyncio.wait_for(self._reader.readuntil(mark), PATIENCE)

    async def read_to_end(self) -> bytes:
        """Read what comes until the server ends the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    def vanish(self) -> None:
        """Leave by a reset, without a close frame."""
        reset(self._writer.transport)


@asynccontextmanager
async def raw_client(address: Address, *, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
    """Open a TCP connection; nothing is sent yet. A small `receive_buffer` (bytes) fills when nobody reads."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, address)
    limit = 1 << 20 if receive_buffer is None else receive_buffer
    reader, writer = await asyncio.open_connection(sock=connection, limit=limit)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def raw_websocket(
    address: Address, *, receive_buffer: int | None = None, **query: str
) -> AsyncIterator[RawClient]:
    """A raw client whose WebSocket stands; it has read `connected`."""
    async with raw_client(address, receive_buffer=receive_buffer) as client:
        head = await client.handshake(target(**query))
        assert head.startswith(b"HTTP/1.1 101"), head
        first = await client.read_message()
        assert first["type"] == "connected", first
        client.messages.clear()
        yield client


def reset(transport: asyncio.BaseTransport) -> None:
    """Drop a connection so that the peer gets a TCP reset."""
    if not transport.is_closing():
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert isinstance(transport, asyncio.WriteTransport)
    transport.abort()

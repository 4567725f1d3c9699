"""A WebSocket client that does exactly what a test says, right or wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.frames import Close, Frame, Opcode

from .recorder import PATIENCE

REQUEST = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    """A masked frame, as a client sends it."""
    return Frame(opcode, data, fin).serialize(mask=True)


class RawClient:
    """One TCP connection to a WebSocket server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def handshake(self, target: bytes = b"/ws") -> bytes:
        """Send the request; return the head of the response."""
        self.send(REQUEST % target)
        return await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), PATIENCE)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def drained(self) -> None:
        """Wait until nearly all that was sent is on its way; raises ConnectionError where that cannot be."""
        async with asyncio.timeout(PATIENCE):
            await self._writer.drain()

    async def read_frame(self) -> tuple[int, bytes]:
        """Read one frame of the server; return its opcode and payload. Raises EOFError when there is none."""
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readexactly(2)
            assert head[0] & 0x80
            assert head[1] & 0x80 == 0
            size = head[1]
            if size == 126:
                size = int.from_bytes(await self._reader.readexactly(2))
            elif size == 127:
                size = int.from_bytes(await self._reader.readexactly(8))
            return head[0] & 0x0F, await self._reader.readexactly(size)

    async def read_close(self) -> int:
        """Read a close frame and the end of the connection; return the code."""
        opcode, payload = await self.read_frame()
        assert opcode == Opcode.CLOSE, (opcode, payload)
        assert await self.read_to_end() == b""
        return Close.parse(payload).code

    async def read_to_end(self) -> bytes:
        """Read what comes until the server ends the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    def end(self) -> None:
        """Send FIN."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Drop the connection."""
        self._writer.transport.abort()


@asynccontextmanager
async def raw_client(address: tuple[str, int], *, limit: int = 1 << 20) -> AsyncIterator[RawClient]:
    """Open a TCP connection; nothing is sent yet."""
    reader, writer = await asyncio.open_connection(*address, limit=limit)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()

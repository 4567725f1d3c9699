"""The least that can be a WebSocket client: it splits frames, answers pings and hands on the rest."""

import asyncio
import base64
import os
from collections.abc import Callable

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

Frame = tuple[int, bytes]
"""Opcode and payload."""


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames at the beginning of `data`, which a server sent, and what is left."""
    frames: list[Frame] = []
    at, size = 0, len(data)
    while size - at >= 2:
        length, start = data[at + 1], at + 2
        if length == 126:
            length, start = int.from_bytes(data[start : start + 2], "big"), start + 2
        elif length == 127:
            length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        if size < start + length or size < start:
            break
        frames.append((data[at] & 15, data[start : start + length]))
        at = start + length
    return frames, data[at:]


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """A frame as a client sends it; a mask of zeros leaves the payload as it is."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 1 << 16:
        head = bytes([0x80 | opcode, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


class WebSocket(asyncio.Protocol):
    """One connection; `path` is asked for, `on_open` and `on_message` are told what happens."""

    __slots__ = ("_data", "_on_message", "_path", "_protocol", "lost", "opened", "transport")

    def __init__(self, path: str, on_message: Callable[[bytes], None], protocol: str | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._path = path
        self._on_message = on_message
        self._protocol = protocol
        self._data = b""
        self.opened: asyncio.Future[None] = loop.create_future()
        """Done at the 101; ConnectionError when the server wants something else."""
        self.lost = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        protocol = f"Sec-WebSocket-Protocol: {self._protocol}\r\n" if self._protocol else ""
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{protocol}\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Split what came; the first is the answer to the handshake."""
        if self._data:
            data = self._data + data
        if not self.opened.done():
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._data = head
                return
            if b" 101 " not in head[:16]:
                self.opened.set_exception(ConnectionError(head[:80].decode(errors="replace")))
                return
            self.opened.set_result(None)
        frames, self._data = split(data)
        for opcode, payload in frames:
            if opcode in (TEXT, BINARY):
                self._on_message(payload)
            elif opcode == PING:
                self.transport.write(frame(PONG, payload))
            elif opcode == CLOSE:
                self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that it is gone."""
        self.lost = True
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionError("dropped in the handshake"))

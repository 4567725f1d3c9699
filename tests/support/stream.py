"""A client of Server-Sent Events on a plain socket: it reads when it may, and keeps all that came."""

import asyncio
import contextlib
import json
import socket
import time
from typing import Any

from tests.support.client import Address, reset
from tests.support.inbox import Inbox
from tests.support.server import PATIENCE

PATH = "/realtime/events"


class Stream(Inbox):
    """One request and its answer, understood as the standard says a browser has to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reader = reader
        self._writer = writer
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._lines: list[str] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        """What came when the answer is no stream."""
        self.positions: list[str] = []
        """The id of each message, the one before where it had none of its own."""
        self.frames: list[str] = []
        """What came as `data`."""
        self.comments: list[float] = []
        """When each comment came, on the monotonic clock."""
        self.last_event_id = ""
        self.retry: int | None = None
        self.fields: set[str] = set()
        self.ended = False
        self._reading = asyncio.create_task(self._read())

    @property
    def port(self) -> int:
        """Its own end of the connection."""
        port: int = self._writer.get_extra_info("sockname")[1]
        return port

    @property
    def end(self) -> str | None:
        """How it ended; None while it stands."""
        return f"{self.status}, ended" if self.ended else None

    async def next_comment(self) -> None:
        """Wait for a comment that was sent after this call, behind which nothing of before is on its way."""
        before = len(self.comments) + 1  # one may be on its way
        await self.until(lambda stream: len(stream.comments) > before)

    async def finished(self) -> None:
        """Wait until the server has ended it."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self._reading)

    def pause(self) -> None:
        """Read nothing more until told."""
        self._may_read.clear()

    def resume(self) -> None:
        """Read again."""
        self._may_read.set()

    async def vanish(self) -> None:
        """Leave by a reset."""
        reset(self._writer.transport)
        self._may_read.set()
        await self._reading

    async def _read(self) -> None:
        try:
            await self._read_head()
            if self.headers.get("content-type") == "text/event-stream":
                async for line in self._text():
                    self._take(line)
                    self._changed.set()
            else:
                async for data in self._chunks():
                    self.body += data
        except (ConnectionError, EOFError):
            pass
        finally:
            self.ended = True
            self._changed.set()
            self._writer.transport.abort()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def _read_head(self) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        self.status = int(head[0].split()[1])
        self.headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-1])
        }
        self._changed.set()

    async def _chunks(self) -> Any:
        if (size := self.headers.get("content-length")) is not None:
            yield await self._reader.readexactly(int(size))
            return
        while self.headers.get("transfer-encoding") == "chunked":
            await self._may_read.wait()
            length = int(await self._reader.readuntil(b"\r\n"), 16)
            data = await self._reader.readexactly(length + 2)
            if not length:
                return
            yield data[:-2]

    async def _text(self) -> Any:
        rest = b""
        async for data in self._chunks():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.decode()

    def _take(self, line: str) -> None:
        if line:
            self._lines.append(line)
            return
        fields = [each.replace(": ", ":", 1).partition(":")[::2] for each in self._lines]
        self._lines = []
        data = []
        for name, value in fields:
            self.fields.add(name)
            match name:
                case "":
                    self.comments.append(time.monotonic())
                case "id":
                    self.last_event_id = value
                case "retry":
                    self.retry = int(value)
                case "data":
                    data.append(value)
        if data:
            self.frames.append("\n".join(data))
            self.messages.append(json.loads(self.frames[-1]))
            self.positions.append(self.last_event_id)


async def request(
    address: Address,
    path: str = PATH,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    receive_buffer: int | None = None,
) -> Stream:
    """Send one request by a connection of its own; a small `receive_buffer` (bytes) fills when nobody reads."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    limit = 1 << 20 if receive_buffer is None else receive_buffer
    reader, writer = await asyncio.open_connection(sock=connection, limit=limit)
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    stream = Stream(reader, writer)
    try:
        with contextlib.suppress(AssertionError):
            await stream.until(lambda one: one.status)
    except asyncio.CancelledError:
        await stream.vanish()
        raise
    return stream

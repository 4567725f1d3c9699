"""Clients that take one message a second: `python -m bench.load.slow_readers PORT READERS RATE SECONDS`.

They have little room for more on their side. Prints one line of JSON.
"""

import asyncio
import base64
import json
import os
import socket
import sys
import time
from dataclasses import dataclass, field

from bench import frames

BUFFER = 16 << 10
"""Bytes that the reader's side takes by itself."""


@dataclass
class SlowReader:
    """Reads a frame when it is told to, and answers the pings between them."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ids: list[int] = field(default_factory=list)
    closed: int | None = None

    async def take(self) -> None:
        """Read up to the next message; nothing more once the server has closed."""
        while self.closed is None:
            opcode, payload = await self._frame()
            match opcode:
                case frames.TEXT:
                    message = json.loads(payload)
                    if "id" in message:
                        self.ids.append(message["id"])
                    return
                case frames.CLOSE:
                    self.closed = int.from_bytes(payload[:2], "big")
                case frames.PING:
                    self.writer.write(frames.frame(frames.PONG, payload))

    async def _frame(self) -> tuple[int, bytes]:
        try:
            head = await self.reader.readexactly(2)
            size = head[1]
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            return head[0] & 15, await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return frames.CLOSE, (1006).to_bytes(2, "big")


async def connect(port: int, user: str) -> SlowReader:
    """Connect, with little room on this side; `connected` is read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    connection.settimeout(0)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=BUFFER)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /realtime/ws?user_id={user} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in head[:16]:
        raise ConnectionError(head[:80])
    client = SlowReader(reader, writer)
    await client.take()
    return client


async def read_slowly(client: SlowReader, rate: float, until: float) -> None:
    """Take messages at a rate until a time of the monotonic clock, or until it is closed."""
    due = time.monotonic()
    while time.monotonic() < until and client.closed is None:
        await client.take()
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def run(port: int, readers: int, rate: float, seconds: float) -> dict[str, object]:
    """All of them at once, all of one user."""
    clients = [await connect(port, "slow") for _ in range(readers)]
    until = time.monotonic() + seconds
    await asyncio.gather(*(read_slowly(client, rate, until) for client in clients))
    return {"ids": [one.ids for one in clients], "closed": sum(one.closed is not None for one in clients)}


def main() -> None:
    """Do what the command line says."""
    port, readers, rate, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(run(int(port), int(readers), float(rate), float(seconds)))))


if __name__ == "__main__":
    main()

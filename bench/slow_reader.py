"""What a reader that takes one message a second costs the server, and whether it is left in peace.

    python -m bench.slow_reader                         120 s, 10,000 messages waiting, one reader
    python -m bench.slow_reader --readers 100 --seconds 60

Everything runs on one machine, on a PostgreSQL of its own. The server has a calm client, for whom nothing is
waiting, then the slow ones as well; what it holds in memory with the one and the others is told. At last
somebody reads everything at once. With one reader the difference drowns in what the allocator keeps; with
many it is told apart. `--size` is bytes of a message's text.
"""

import argparse
import asyncio
import base64
import json
import os
import socket
import time
from dataclasses import dataclass, field

import asyncpg
import psutil

from bench.delivery import cluster, migrated, server_process

SETTLED = 3.0
"""Seconds after which what a start leaves behind has gone."""
BUFFER = 16 << 10
"""Bytes that the reader's side takes by itself."""


@dataclass
class Reader:
    """A WebSocket client that reads a frame when it is told to, and answers the pings between them."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ids: list[int] = field(default_factory=list)
    pings: int = 0
    closed: int | None = None

    async def take(self) -> None:
        """Read up to the next message; nothing more once the server has closed."""
        while self.closed is None:
            opcode, payload = await self._frame()
            match opcode:
                case 1:
                    message = json.loads(payload)
                    if "id" in message:
                        self.ids.append(message["id"])
                    return
                case 8:
                    self.closed = int.from_bytes(payload[:2])
                case 9:
                    self.pings += 1
                    self.writer.write(bytes([0x8A, 0x80 | len(payload)]) + bytes(4) + payload)

    async def _frame(self) -> tuple[int, bytes]:
        try:
            head = await self.reader.readexactly(2)
            size = head[1]
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            return head[0] & 15, await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 8, (1006).to_bytes(2)


async def connect(port: int, user: str) -> Reader:
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
    assert b" 101 " in head, head
    client = Reader(reader, writer)
    await client.take()
    return client


async def read_slowly(client: Reader, rate: float, until: float) -> None:
    """Take messages at a rate until a time of the monotonic clock, or until it is closed."""
    due = time.monotonic()
    while time.monotonic() < until and client.closed is None:
        await client.take()
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def measure(dsn: str, port: int, service: psutil.Process, options: argparse.Namespace) -> None:
    """Put the readers to the server, and print what it held."""
    database = await asyncpg.connect(dsn)
    written = [
        row[0]
        for row in await database.fetch(
            "SELECT realtime_publish('slow', 'story', jsonb_build_object('text', $1::text))"
            " FROM generate_series(1, $2::int)",
            "x" * options.size,
            options.waiting,
        )
    ]
    calm = await connect(port, "calm")
    await asyncio.sleep(SETTLED)
    before = highest = service.memory_info().rss
    slow = [await connect(port, "slow") for _ in range(options.readers)]
    began = time.monotonic()
    reading = [
        asyncio.create_task(read_slowly(client, options.rate, began + options.seconds)) for client in slow
    ]
    last = began
    while not all(task.done() for task in reading):
        await asyncio.wait(reading, timeout=0.5)
        now = service.memory_info().rss
        highest = max(highest, now)
        if time.monotonic() - last >= 20:
            last = time.monotonic()
            print(f"  {last - began:4.0f} s: {megabytes(now)} MiB, {len(slow[0].ids)} read", flush=True)
    await asyncio.gather(*reading)
    after = service.memory_info().rss
    marked = await database.fetchval("SELECT count(*) FROM realtime_events WHERE delivered")
    read = sorted(len(client.ids) for client in slow)
    rest = await connect(port, "slow")
    while rest.closed is None and (not rest.ids or rest.ids[-1] != written[-1]):
        await rest.take()
    each = (highest - before) / options.readers / 1024
    figures = {
        "waiting for each": f"{options.waiting} messages, {options.waiting * options.size / 1e6:.1f} MB",
        "readers": f"{options.readers}, {options.rate} messages/s each, {options.seconds:.0f} s",
        "read": f"{read[0]} to {read[-1]} messages",
        "exactly the oldest, in order": all(client.ids == written[: len(client.ids)] for client in slow),
        "pings answered by the first": slow[0].pings,
        "closed by the server": sum(client.closed is not None for client in slow),
        "marked delivered": marked,
        "the next gets the rest": rest.ids == written[len(written) - len(rest.ids) :],
        "server with a calm client": f"{megabytes(before)} MiB",
        "at most with the slow ones": f"{megabytes(highest)} MiB, {each:.0f} KiB for each",
        "at their end": f"{megabytes(after)} MiB",
    }
    for name, value in figures.items():
        print(f"{name:30} {value}")
    for client in (calm, rest, *slow):
        client.writer.transport.abort()
    await database.close()


def megabytes(size: int) -> str:
    """Bytes as MiB."""
    return f"{size / (1 << 20):.1f}"


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--readers", type=int, default=1)
    parser.add_argument("--size", type=int, default=200)
    options = parser.parse_args()
    os.environ["CONNECTIONS_PER_USER"] = str(options.readers + 2)
    with cluster() as server:
        dsn = migrated(server, "slow")
        with server_process("app.main:app", dsn) as (port, service):
            asyncio.run(measure(dsn, port, service, options))


if __name__ == "__main__":
    main()

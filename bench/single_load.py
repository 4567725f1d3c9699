"""The load, each kind a process of its own: writers of moods, readers of frames, and a bare LISTEN.

    python -m bench.single_load write DSN RATE WRITERS SECONDS USERS     rate 0: as fast as they can
    python -m bench.single_load read PORT USERS                          until standard input closes
    python -m bench.single_load listen DSN                               until standard input closes

Each prints one line of JSON at its end. A mood's score is the microsecond its insert began, so that a
reader knows how old it is; the machine's clock is one for all processes.
"""

import asyncio
import base64
import json
import os
import random
import re
import sys
import time

import asyncpg

WRAP = 1 << 31
SCORE = re.compile(rb'"mood_score" ?: ?(\d+)')


def now() -> int:
    """Microseconds, wrapped to fit a score."""
    return time.time_ns() // 1000 % WRAP


async def write(dsn: str, rate: float, writers: int, seconds: float, users: int) -> None:
    """Insert moods, each in a transaction of its own."""
    connections = [await asyncpg.connect(dsn) for _ in range(writers)]
    begun: list[tuple[int, str]] = []
    start = time.monotonic()

    async def run(connection: asyncpg.Connection) -> None:
        insert = await connection.prepare("INSERT INTO moods (user_id, score, at) VALUES ($1, $2, now())")
        while time.monotonic() - start < seconds:
            due = start + len(begun) / rate if rate else 0.0
            user = f"p{random.randrange(users)}"
            place = len(begun)
            begun.append((0, user))
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            score = now()
            begun[place] = (score, user)
            await insert.fetch(user, score)

    await asyncio.gather(*map(run, connections))
    took = time.monotonic() - start
    print(json.dumps({"rows": len(begun), "seconds": took, "begun": begun if rate else []}))


class Reader(asyncio.Protocol):
    """The least that can be a WebSocket client: it finds scores and answers pings."""

    def __init__(self, user: str, ages: list[int]) -> None:
        self._user = user
        self._ages = ages
        self._data = b""
        self.connected = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /realtime/ws?user_id={self._user} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Read frames: note the ages of moods, answer pings."""
        data = self._data + data
        if not self.connected.done():
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._data = head
                return
            assert b" 101 " in head, head
            self.connected.set_result(None)
        at, size = 0, len(data)
        while size - at >= 2:
            opcode, length, head_size = data[at] & 15, data[at + 1] & 127, 2
            if length == 126:
                if size - at < 4:
                    break
                length, head_size = int.from_bytes(data[at + 2 : at + 4]), 4
            if size - at < head_size + length:
                break
            payload = data[at + head_size : at + head_size + length]
            at += head_size + length
            if opcode == 9:
                self._transport.write(bytes([0x8A, 0x80 | length]) + bytes(4) + payload)
            elif found := SCORE.search(payload):
                self._ages.append((now() - int(found[1])) % WRAP)
        self._data = data[at:]


async def read(port: int, users: int) -> None:
    """Connect one reader per user; say so; report the ages of what came when standard input closes."""
    loop = asyncio.get_running_loop()
    ages: list[int] = []
    readers = []
    for number in range(users):
        _, reader = await loop.create_connection(lambda n=number: Reader(f"p{n}", ages), "127.0.0.1", port)
        readers.append(reader)
        await reader.connected
    print("ready", flush=True)
    counts: list[tuple[float, int]] = []
    closed = loop.run_in_executor(None, sys.stdin.read)
    while not closed.done():
        counts.append((time.monotonic(), len(ages)))
        await asyncio.sleep(0.02)
    first = next((at for at, count in counts if count), 0.0)
    last = next((at for at, count in counts if count == len(ages)), first)
    print(json.dumps({"ages": ages, "seconds": last - first}))


async def listen(dsn: str) -> None:
    """LISTEN and write down who was rung for, and when."""
    rung: list[tuple[int, str]] = []
    connection = await asyncpg.connect(dsn)
    await connection.add_listener(
        "mood_events", lambda *args: rung.append((now(), json.loads(args[3])["user_id"]))
    )
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps({"rung": rung}))


def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["write", dsn, rate, writers, seconds, users]:
            asyncio.run(write(dsn, float(rate), int(writers), float(seconds), int(users)))
        case ["read", port, users]:
            asyncio.run(read(int(port), int(users)))
        case ["listen", dsn]:
            asyncio.run(listen(dsn))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()

"""Attackers, each a process of its own, which may open as many files as it needs and gives way to everybody.

    python -m bench.attackers KIND PORT COUNT

KIND is `half-open` or one of `FLOODS`, COUNT the connections it has at a time: `half-open` opens that many
once, the others connect again as soon as they are closed. It says `open N` once it is at work, N being how
many connections the server has closed by then, and again for each line of standard input; it ends with that.
"""

import asyncio
import itertools
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.frames import BINARY, PING, TEXT, frame

CONT = 0
HALVES = (b"", b"GET /realtime/ws", b"GET /realtime/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
AT_ONCE = 200
"""Connections in the making at a time."""
AGAIN_AFTER = 0.01
"""Seconds until somebody who was closed connects again."""


@dataclass(frozen=True)
class Flood:
    """What a connection sends: `opening` once, then `chunk` every `every` seconds, 0 for no pause."""

    opening: bytes
    chunk: bytes = b""
    every: float = 0.0
    takes: bool = True
    """Whether it reads what the server says."""


def upgrade(query: str) -> bytes:
    """A handshake of a WebSocket; a plus in the query becomes a number of the attacker's own."""
    return (
        f"GET /realtime/ws?{query} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


CONNECTED = upgrade("user_id=attacker+")
ENDLESS = frame(TEXT, b"x").replace(b"\x81", b"\x01", 1)
PIECE = frame(CONT).replace(b"\x80", b"\x00", 1)

FLOODS = {
    "pings": Flood(CONNECTED, frame(PING) * 500),
    "pings within the limit": Flood(CONNECTED, frame(PING) * 45, every=0.1),
    "texts": Flood(CONNECTED, frame(TEXT, b"ping") * 100),
    "texts within the limit": Flood(CONNECTED, frame(TEXT, b"ping"), every=0.06),
    "fragments": Flood(CONNECTED + ENDLESS, PIECE * 500),
    "messages of a mebibyte": Flood(CONNECTED, frame(BINARY, bytes(1 << 20))),
    "bombs": Flood(CONNECTED, b"\xc1" + frame(TEXT, bytes(1000))[1:]),
    "unknown devices": Flood(upgrade("user_id=attacker+&device_token=made-up"), takes=False),
    "slow writers": Flood(CONNECTED + frame(TEXT, bytes(60_000))[:60], b"x", every=0.5),
    "slow readers": Flood(upgrade("user_id=p+"), takes=False),
    "requests": Flood(b"", b"GET /realtime/devices?user_id=attacker+ HTTP/1.1\r\nHost: bench\r\n\r\n" * 10),
    "bad tokens": Flood(
        b"",
        b"GET /realtime/dead-letters HTTP/1.1\r\nHost: bench\r\nX-Forwarded-For: 8.8.4.4\r\n"
        b"Authorization: Bearer a.b.c\r\n\r\n" * 10,
    ),
}


@dataclass
class Count:
    """What has happened so far."""

    closed: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: itertools.cycle(range(50)))


class HalfOpen(asyncio.Protocol):
    """Says half of something; tells when it is dropped."""

    def __init__(self, said: bytes, count: Count) -> None:
        self._said = said
        self._count = count

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say it."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._said)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Note that it is over."""
        self._count.closed += 1


class Attacker(asyncio.Protocol):
    """One connection of a flood."""

    def __init__(self, flood: Flood, number: int) -> None:
        self._flood = flood
        self._own = str(number).encode()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._flood.opening.replace(b"+", self._own))
        if not self._flood.takes:
            transport.pause_reading()

    def pause_writing(self) -> None:
        """Wait: the server does not take it that fast."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Stop."""
        self._may_write.set()
        self.ended.set_result(None)

    async def attack(self) -> None:
        """Send until the server has had enough."""
        chunk = self._flood.chunk.replace(b"+", self._own)
        while chunk and not self._transport.is_closing():
            self._transport.write(chunk)
            await asyncio.sleep(self._flood.every)
            await self._may_write.wait()
        await self.ended


async def half_open(port: int, connections: int, count: Count) -> None:
    """Open connections that never say all of what they want."""
    loop = asyncio.get_running_loop()
    turns = asyncio.Semaphore(AT_ONCE)

    async def open_one(said: bytes) -> None:
        async with turns:
            try:
                await loop.create_connection(lambda: HalfOpen(said, count), "127.0.0.1", port)
            except OSError:
                count.closed += 1

    await asyncio.gather(*(open_one(HALVES[number % len(HALVES)]) for number in range(connections)))


async def again_and_again(flood: Flood, port: int, count: Count) -> None:
    """Attack by one connection after the other."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            _, attacker = await loop.create_connection(
                lambda: Attacker(flood, next(count.numbers)), "127.0.0.1", port
            )
            await attacker.attack()
        except OSError:
            pass
        count.closed += 1
        await asyncio.sleep(AGAIN_AFTER)


async def work(kind: str, port: int, connections: int) -> None:
    """Attack until standard input ends."""
    loop = asyncio.get_running_loop()
    count = Count()
    if kind == "half-open":
        await half_open(port, connections, count)
        attacks = []
    else:
        attacks = [
            asyncio.create_task(again_and_again(FLOODS[kind], port, count)) for _ in range(connections)
        ]
    print("open", count.closed, flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print("open", count.closed, flush=True)
    for attack in attacks:
        attack.cancel()


def main() -> None:
    """Do what the command line says."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    match sys.argv[1:]:
        case [kind, port, connections] if kind == "half-open" or kind in FLOODS:
            os.nice(19)
            asyncio.run(work(kind, int(port), int(connections)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()

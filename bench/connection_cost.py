"""What an idle WebSocket costs in memory, and a message, a ping and a handshake in CPU, per way to serve it.

    python bench/connection_cost.py                          the three ways, 4,000 and 10,000 connections
    python bench/connection_cost.py --ways host --loops asyncio uvloop --parsers h11 httptools

Each measurement runs in a server process of its own; the clients are raw sockets in this one. Memory is the
growth of the server's resident set, CPU its user and system time. Memory
repeats within a per cent, CPU does not: compare only what ran side by side.
"""

import argparse
import itertools
import select
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

WAYS = {
    "fastapi": "a FastAPI route on uvicorn's defaults",
    "asgi": "raw ASGI on uvicorn's own protocol",
    "host": "raw ASGI handed over to our own socket",
}
ROUNDS = 5
BURSTS = 400
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
PING_FRAME = 0x89
PONG_HEAD = b"\x8a\x84\x00\x00\x00\x00"  # a mask of zeros leaves the payload as it is


@dataclass(frozen=True)
class Cost:
    """One measurement; memory in KiB per connection, CPU in microseconds per operation."""

    memory: float
    handshake: float
    fan_out: float
    burst: float
    ping: float | None


def main() -> None:
    """Measure what the command line asks for and print one line each."""
    options = _arguments()
    print(f"{'way':8} {'loop':8} {'parser':10} {'conns':>6} {'KiB/conn':>9} {'us/accept':>10} "
          f"{'us/message':>11} {'us/burst msg':>13} {'us/ping+pong':>13}")  # fmt: skip
    grid = itertools.product(options.ways, options.loops, options.parsers, options.connections)
    for way, loop, parser, connections in grid:
        cost = _measure(way, loop, parser, connections)
        ping = "-" if cost.ping is None else f"{cost.ping:.1f}"
        print(f"{way:8} {loop:8} {parser:10} {connections:6} {cost.memory:9.1f} {cost.handshake:10.0f} "
              f"{cost.fan_out:11.1f} {cost.burst:13.1f} {ping:>13}", flush=True)  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--loops", nargs="+", choices=["asyncio", "uvloop"], default=["asyncio"])
    parser.add_argument("--parsers", nargs="+", choices=["h11", "httptools"], default=["h11"])
    parser.add_argument("--connections", nargs="+", type=int, default=[4000, 10_000])
    return parser.parse_args()


def _measure(way: str, loop: str, parser: str, connections: int) -> Cost:
    with _server(way, loop, parser) as (server, port), _Clients(port) as clients:
        clients.connect(200)  # what the first connections make the process load is not theirs
        _ask(port, "settle")
        before, cpu = server.memory_info().rss, _cpu(server)
        clients.connect(connections)
        handshake = (_cpu(server) - cpu) / connections
        _ask(port, "settle")
        memory = (server.memory_info().rss - before) / connections / 1024

        sockets = connections + 200
        fan_out = _spent(server, port, f"fan-out-{ROUNDS}", clients.read_all)
        burst = _spent(server, port, f"burst-{BURSTS * 256}", clients.read_all)
        ping = None
        if way == "host":
            ping = _spent(server, port, "ping", lambda: clients.answer_pings(sockets))
        return Cost(
            memory,
            handshake * 1e6,
            fan_out / (sockets * ROUNDS) * 1e6,
            burst / (BURSTS * 256) * 1e6,
            None if ping is None else ping / sockets * 1e6,
        )


def _spent(server: psutil.Process, port: int, order: str, read: Callable[[], None]) -> float:
    before = _cpu(server)
    _ask(port, order)
    read()
    return _cpu(server) - before


def _cpu(server: psutil.Process) -> float:
    times = server.cpu_times()
    return float(times.user + times.system)


def _ask(port: int, what: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{what}", timeout=120) as response:
        return int(response.read())


@contextmanager
def _server(way: str, loop: str, parser: str) -> Iterator[tuple[psutil.Process, int]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", f"connection_cost_apps:{way}", "--port", str(port), "--loop", loop,
         "--http", parser, "--log-level", "warning"],
        cwd=Path(__file__).parent,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                _ask(port, "settle")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield psutil.Process(process.pid), port
    finally:
        process.kill()
        process.wait()


class _Clients:
    """Many raw WebSocket clients that read, count and forget."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: dict[int, socket.socket] = {}
        self._poll = select.epoll()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets.values():
            each.close()
        self._poll.close()

    def connect(self, count: int) -> None:
        """Complete `count` handshakes, a hundred at a time."""
        for start in range(0, count, 100):
            batch = range(start, min(start + 100, count))
            fresh = [socket.create_connection(("127.0.0.1", self._port)) for _ in batch]
            for each in fresh:
                each.sendall(HANDSHAKE)
            for each in fresh:
                response = b""
                while b"\r\n\r\n" not in response:
                    response += each.recv(4096)
                assert response.startswith(b"HTTP/1.1 101"), response
                each.setblocking(False)  # noqa: FBT003
                self._sockets[each.fileno()] = each
                self._poll.register(each.fileno(), select.EPOLLIN)

    def read_all(self) -> None:
        """Read until nothing comes any more (sizes are not known in advance: the defaults compress)."""
        while ready := self._poll.poll(0.5):
            for number, _ in ready:
                self._sockets[number].recv(1 << 20)

    def answer_pings(self, count: int) -> None:
        """Answer one ping of every client."""
        while count:
            for number, _ in self._poll.poll(10):
                ping = self._sockets[number].recv(1 << 16)
                assert ping[0] == PING_FRAME, ping
                self._sockets[number].send(PONG_HEAD + ping[2:6])
                count -= 1


if __name__ == "__main__":
    main()

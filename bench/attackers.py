"""Attackers, each a process of its own, which may open as many files as it needs.

    python -m bench.attackers half-open PORT COUNT     so many connections that say half of a request

Says `open N` once all are open, N being how many the server has closed by then, and again for each line of
standard input; ends with it.
"""

import asyncio
import resource
import sys

HEADS = (b"", b"GET /realtime/ws", b"GET /realtime/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
AT_ONCE = 200
"""Connections in the making at a time."""


class HalfOpen(asyncio.Protocol):
    """Says half of something; tells when it is dropped."""

    def __init__(self, said: bytes, closed: list[None]) -> None:
        self._said = said
        self._closed = closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say it."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._said)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Note that it is over."""
        self._closed.append(None)


async def half_open(port: int, count: int) -> None:
    """Open connections that never say all of what they want."""
    loop = asyncio.get_running_loop()
    turns = asyncio.Semaphore(AT_ONCE)
    closed: list[None] = []

    async def open_one(said: bytes) -> None:
        async with turns:
            try:
                await loop.create_connection(lambda: HalfOpen(said, closed), "127.0.0.1", port)
            except OSError:
                closed.append(None)

    await asyncio.gather(*(open_one(HEADS[number % len(HEADS)]) for number in range(count)))
    print("open", len(closed), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print("open", len(closed), flush=True)


def main() -> None:
    """Do what the command line says."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    match sys.argv[1:]:
        case ["half-open", port, count]:
            asyncio.run(half_open(int(port), int(count)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()

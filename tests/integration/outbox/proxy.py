"""A TCP proxy in front of PostgreSQL that can fall silent without closing anything, and lead elsewhere."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Forwards bytes to `target`, a port of 127.0.0.1 or the path of a socket, unless it is stalled."""

    def __init__(self, target: int | str) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        """How many connections there have been."""
        self.ends = 0
        """How often one side has ended a connection."""
        self._tells_ends = True
        self._cuts_at: bytes | None = None
        self._passes = asyncio.Event()
        self._passes.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def stall(self) -> None:
        """Forward nothing any more, and take connections that lead nowhere."""
        self._passes.clear()

    def go_on(self) -> None:
        """Forward again, first what has come meanwhile."""
        self._passes.set()

    def keep_ends_back(self) -> None:
        """Forward whatever is said, but not that the other side has ended the connection."""
        self._tells_ends = False

    def cut_at(self, words: bytes | None) -> None:
        """Cut each connection on which these are said, in place of forwarding them; None: no more."""
        self._cuts_at = words

    def heal(self) -> None:
        """Forward again; what stalled stays cut, as a network that lost its state would leave it."""
        for writer in self._writers:
            writer.transport.abort()
        self._passes.set()

    def lead_to(self, target: int | str) -> None:
        """Cut what there is; new connections go to another port."""
        self.target = target
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            await self._passes.wait()
            upstream, other = await self._connect()
            self._writers.add(other)
            await asyncio.gather(self._forward(reader, other), self._forward(upstream, writer))
        except OSError:
            pass
        finally:
            for one in (writer, other):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection("127.0.0.1", self.target)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            await self._passes.wait()
            if self._cuts_at is not None and self._cuts_at in data:
                raise ConnectionResetError
            sink.write(data)
            await sink.drain()
        self.ends += 1
        if not self._tells_ends:
            await asyncio.Event().wait()
        raise ConnectionResetError

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve in a task of its own, which `close` ends."""
        task = asyncio.ensure_future(self.serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def proxy_to(target: int | str) -> AsyncIterator[Proxy]:
    """A proxy at work, to a port of 127.0.0.1 or the path of a socket."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()

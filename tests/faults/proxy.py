"""A TCP proxy that does what networks do: cut, fall silent, forget one side, delay, throttle."""

import asyncio
import contextlib
from dataclasses import dataclass, field

Target = int | str
"""A port of 127.0.0.1, or the path of a socket."""
BLOCK = 1 << 14


@dataclass(eq=False)
class _Link:
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter | None = None
    forgotten: bool = False
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)


class Proxy:
    """Forwards bytes to `target`, which may change for new connections.

    `delay`: seconds that each block waits; `rate`: bytes per second of each direction, 0 for any.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0
        self.rate = 0.0
        self._passes = asyncio.Event()
        self._passes.set()
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen on a port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End everything."""
        if self._server is not None:
            self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    # ---- what a network does

    def cut(self) -> None:
        """Abort every connection, on both sides."""
        for link in self._links:
            _abort(link)

    def stall(self) -> None:
        """Forward nothing, and accept what leads nowhere."""
        self._passes.clear()

    def forget(self) -> None:
        """Abort the far side of every connection, and leave the near one open and silent."""
        for link in self._links:
            link.forgotten = True
            if link.far is not None:
                link.far.transport.abort()

    def heal(self) -> None:
        """Forward at once again; what was stalled goes on, what was forgotten is cut at last."""
        self.delay = self.rate = 0.0
        self._passes.set()
        for link in self._links:
            if link.forgotten:
                _abort(link)

    # ---- forwarding

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        task = asyncio.ensure_future(self._serve(reader, link))
        self._links.add(link)
        self._serving.add(task)

        def done(task: "asyncio.Task[None]") -> None:
            # One that was cancelled before it began has not done so.
            _abort(link)
            self._links.discard(link)
            self._serving.discard(task)

        task.add_done_callback(done)

    async def _serve(self, reader: asyncio.StreamReader, link: _Link) -> None:
        try:
            await self._passes.wait()
            upstream, link.far = await self._connect()
            link.tasks = [
                asyncio.ensure_future(self._forward(reader, link.far)),
                asyncio.ensure_future(self._forward(upstream, link.near)),
            ]
            await asyncio.wait(link.tasks, return_when=asyncio.FIRST_COMPLETED)
            while link.forgotten and not link.near.transport.is_closing():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
        except OSError:
            pass
        finally:
            for task in link.tasks:
                task.cancel()
            await asyncio.gather(*link.tasks, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection("127.0.0.1", self.target)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(BLOCK):
                await self._passes.wait()
                pause = self.delay + (len(data) / self.rate if self.rate else 0.0)
                if pause:
                    await asyncio.sleep(pause)
                sink.write(data)
                await sink.drain()


def _abort(link: _Link) -> None:
    for writer in (link.near, link.far):
        if writer is not None:
            writer.transport.abort()

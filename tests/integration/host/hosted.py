"""A real uvicorn in the test's own loop, with the host installed as the application does it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from app.gateway.asgi_socket import serve_socket
from app.gateway.uvicorn_host import HostOptions, HostReport, find_server, inside, install
from tests.support.in_process import address_of, in_process

from .recorder import PATIENCE, Recorder


class Hosted:
    """The application under test and what it has seen; WebSockets wait at `gate` before their accept."""

    def __init__(self, options: HostOptions) -> None:
        self._options = options
        self._connections: asyncio.Queue[Recorder] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.report: HostReport
        self.server: uvicorn.Server
        self.requested = asyncio.Event()

    @property
    def address(self) -> tuple[str, int]:
        """Where the server listens."""
        return address_of(self.server)

    @property
    def url(self) -> str:
        """The address of its WebSocket."""
        return "ws://{}:{}/ws".format(*self.address)

    async def connection(self) -> Recorder:
        """The next connection that was accepted."""
        return await asyncio.wait_for(self._connections.get(), PATIENCE)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        match scope["type"], scope.get("path"):
            case "lifespan", _:
                await self._live(receive, send)
            case "websocket", "/own":
                await self._echo(receive, send)
            case "websocket", "/refused":
                await receive()
                await send({"type": "websocket.http.response.start", "status": 429, "headers": []})
                await send({"type": "websocket.http.response.body", "body": b"later"})
            case "websocket", _:
                await receive()
                await self.gate.wait()
                await send({"type": "websocket.accept"})
                await serve_socket(scope, receive, send, self._open)
            case _:
                await self._answer(receive, send)

    def _open(self, socket: Any) -> Recorder:
        recorder = Recorder(socket)
        self._connections.put_nowait(recorder)
        return recorder

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        self.report = install(find_server(), self._options, _nothing_to_drain)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _echo(self, receive: Any, send: Any) -> None:
        await receive()
        await self.gate.wait()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    async def _answer(self, receive: Any, send: Any) -> None:
        self.requested.set()
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def _nothing_to_drain() -> None:
    pass


@asynccontextmanager
async def hosted(options: HostOptions | None = None, **config: Any) -> AsyncIterator[Hosted]:
    """Run the application under uvicorn; `config` is uvicorn's."""
    application = Hosted(options or HostOptions())
    async with in_process(application, inside.abort_connections, log_config=None, **config) as server:
        application.server = server
        yield application

"""A key server as issuers run one, which can be away, slow, talkative or rotated."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class KeyServer:
    """Answers every request with what it is told to; counts them."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.body: bytes | None = None
        """What it answers instead of the keys."""
        self.status = "200 OK"
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = 0
        self.arrived = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where its keys are."""
        return f"http://127.0.0.1:{self._port}/.well-known/jwks.json"

    async def start(self) -> None:
        """Answer, on the port of last time if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be away: nobody can connect."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            self.arrived.set()
            await self.may_answer.wait()
            body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
            head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
            writer.write(f"{head}Location: /elsewhere\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def key_server(*keys: dict[str, Any]) -> AsyncIterator[KeyServer]:
    """A key server at work."""
    server = KeyServer()
    server.keys = list(keys)
    await server.start()
    try:
        yield server
    finally:
        server.may_answer.set()
        await server.stop()

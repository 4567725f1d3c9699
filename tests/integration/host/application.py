"""The application of the tests that need a uvicorn process of their own; it prints what happens to it.

STARTUP_ERROR   refuse to start, with this text
DRAIN           `never`: a drain that does not end; `early`: install before a long start-up; else close politely
"""

import asyncio
import os
from typing import Any

from app.gateway.asgi_socket import serve_socket
from app.gateway.socket import Socket
from app.gateway.uvicorn_host import HostOptions, find_server, install

OPTIONS = HostOptions(drain_timeout=1.0, leftover_timeout=0.5, close_timeout=0.5)

_open: list[Socket] = []


class _Connection:
    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        _open.append(socket)

    def on_text(self, text: str) -> None:
        if text == "flood":
            asyncio.get_running_loop().create_task(self._flood())
        else:
            self._socket.send(text.encode())
            self._socket.flush()

    async def _flood(self) -> None:
        while self._socket.writable:
            self._socket.send(b"x" * 50_000)
            self._socket.flush()
            await asyncio.sleep(0)
        _say("stuck")

    def on_binary(self, size: int) -> None: ...
    def on_too_large(self) -> None: ...
    def on_pong(self) -> None: ...
    def on_writable(self) -> None: ...

    def on_closed(self, code: int | None) -> None:
        _open.remove(self._socket)
        _say(f"closed {code}")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """One WebSocket that echoes, and HTTP that says ok, or streams without end."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await receive()
        if scope["path"] == "/refused":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        await serve_socket(scope, receive, send, _Connection)
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/stream":
            await _stream(receive, send)
        await send({"type": "http.response.body", "body": b"ok"})


async def _stream(receive: Any, send: Any) -> None:
    async def until_disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.create_task(until_disconnected())
    while not gone.done():
        await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
        await asyncio.sleep(0)


async def _live(receive: Any, send: Any) -> None:
    await receive()
    if error := os.environ.get("STARTUP_ERROR"):
        await send({"type": "lifespan.startup.failed", "message": error})
        return
    _say(install(find_server(), OPTIONS, _drain))
    if os.environ.get("DRAIN") == "early":
        _say("starting")
        await asyncio.sleep(0.5)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    _say("lifespan over")
    await send({"type": "lifespan.shutdown.complete"})


async def _drain() -> None:
    _say(f"draining {len(_open)}")
    for socket in _open:
        socket.close(1001, "going away")
    if os.environ.get("DRAIN") == "never":
        await asyncio.Event().wait()


def _say(text: object) -> None:
    print(text, f"[{os.getpid()}]", flush=True)  # noqa: T201

"""The three applications `connection_cost.py` measures; each takes orders over HTTP."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from app.gateway.asgi_socket import serve_socket
from app.gateway.socket import Socket
from app.gateway.uvicorn_host import HostOptions, find_server, install

MESSAGE = b'{"type":"mood_update","id":42,"data":{"event_type":"mood_logged"' + b" " * 134 + b"}}"
TEXT = MESSAGE.decode()

Deliver = Callable[[Any], Awaitable[None]]


async def _obey(order: str, connections: list[Any], deliver: Deliver) -> int:
    """Carry out one order; return how many messages that sent."""
    verb, _, number = order.partition("-")
    if verb == "fan":
        rounds = int(order.rpartition("-")[2])
        for _ in range(rounds):
            for each in connections:
                await deliver(each)
            await asyncio.sleep(0)
        return rounds * len(connections)
    if verb == "burst":
        for turn in range(int(number)):
            await deliver(connections[turn // 256 % len(connections)])
            if turn % 256 == 255:
                await asyncio.sleep(0)
        return int(number)
    if verb == "ping":
        for each in connections:
            each.ping()
        return len(connections)
    await asyncio.sleep(0.3)
    gc.collect()
    return 0


# uvicorn's defaults with a FastAPI route

fastapi = FastAPI()
_routes: list[WebSocket] = []


@fastapi.websocket("/ws")
async def _endpoint(socket: WebSocket) -> None:
    await socket.accept()
    _routes.append(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        _routes.remove(socket)


@fastapi.get("/{order}")
async def _order(order: str) -> int:
    async def deliver(socket: WebSocket) -> None:
        await socket.send_text(TEXT)

    return await _obey(order, _routes, deliver)


# Raw ASGI

_senders: list[Any] = []
_sockets: list[Socket] = []


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Serve raw ASGI on whatever protocol uvicorn uses."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        _senders.append(send)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        _senders.remove(send)
    elif scope["type"] == "http":

        async def deliver(send: Any) -> None:
            await send({"type": "websocket.send", "text": TEXT})

        await _answer(scope, send, _senders, deliver)
    else:
        await _lifespan(receive, send)


class _Idle:
    """A connection that only counts as one."""

    __slots__ = ("_socket",)

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        _sockets.append(socket)

    def on_text(self, text: str) -> None: ...
    def on_binary(self, size: int) -> None: ...
    def on_too_large(self) -> None: ...
    def on_pong(self) -> None: ...
    def on_writable(self) -> None: ...
    def on_closed(self, _code: int | None) -> None:
        _sockets.remove(self._socket)


async def host(scope: Any, receive: Any, send: Any) -> None:
    """Serve raw ASGI, handed over to our own socket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await serve_socket(scope, receive, send, _Idle)
    elif scope["type"] == "http":

        async def deliver(socket: Socket) -> None:
            socket.send(MESSAGE)

        await _answer(scope, send, _sockets, deliver)
    else:
        await _lifespan(receive, send, with_host=True)


async def _answer(scope: Any, send: Any, connections: list[Any], deliver: Deliver) -> None:
    sent = await _obey(scope["path"].strip("/"), connections, deliver)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(sent).encode()})


async def _lifespan(receive: Any, send: Any, *, with_host: bool = False) -> None:
    async def nothing_to_drain() -> None: ...

    await receive()
    if with_host:
        assert not install(find_server(), HostOptions(), nothing_to_drain).missing
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})

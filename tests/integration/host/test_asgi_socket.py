"""The socket over plain ASGI: other servers, and Starlette's test client."""

import asyncio
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.gateway.asgi_socket import serve_socket
from app.gateway.socket import EXTENSION, Socket

from .recorder import PATIENCE, Recorder


class Server:
    """An ASGI server whose peer the test plays; `taking` says whether it takes messages."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.taking = asyncio.Event()
        self.taking.set()
        self.opened: asyncio.Future[Recorder] = asyncio.get_running_loop().create_future()
        self.scope: dict[str, Any] = {"type": "websocket"}

    async def send(self, message: Any) -> None:
        await self.taking.wait()
        self.sent.put_nowait(message)

    def open(self, socket: Socket) -> Recorder:
        recorder = Recorder(socket)
        self.opened.set_result(recorder)
        return recorder

    async def serve(self, **limits: Any) -> None:
        await asyncio.wait_for(
            serve_socket(self.scope, self.arriving.get, self.send, self.open, **limits), PATIENCE
        )

    def texts(self) -> list[str]:
        return [self.sent.get_nowait()["text"] for _ in range(self.sent.qsize())]


async def test_everything_sent_is_taken_in_order_by_one_writer_that_ends() -> None:
    """The writer lives only while there is something to write."""
    server = Server()
    serving = asyncio.create_task(server.serve())
    connection = await server.opened
    before = len(asyncio.all_tasks())
    for number in range(100):
        connection.socket.send(b"%d" % number)
    assert len(asyncio.all_tasks()) == before + 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert server.texts() == [str(number) for number in range(100)]
    assert len(asyncio.all_tasks()) == before
    assert not connection.socket.confirms
    server.arriving.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await serving
    assert connection.told.get_nowait() == ("closed", 1000)


async def test_what_arrives_is_told() -> None:
    """Text, binary and too much of either."""
    server = Server()
    serving = asyncio.create_task(server.serve(message_size=10))
    connection = await server.opened
    for message in (
        {"text": "x" * 10},
        {"text": "é" * 10},
        {"text": "x" * 11, "bytes": None},
        {"bytes": b"123"},
        {"bytes": b"123", "text": None},
    ):
        server.arriving.put_nowait({"type": "websocket.receive", **message})
    told = [await connection.next() for _ in range(5)]
    server.arriving.put_nowait({"type": "websocket.disconnect"})
    await serving

    assert told == [
        ("text", "x" * 10),
        ("too_large", None),
        ("too_large", None),
        ("binary", 3),
        ("binary", 3),
    ]
    assert await connection.next() == ("closed", None)


async def test_a_server_that_does_not_take_makes_the_socket_unwritable() -> None:
    """`writable` follows what waits, and its return is told once."""
    server = Server()
    server.taking.clear()
    serving = asyncio.create_task(server.serve(high_water=10))
    connection = await server.opened
    connection.socket.send(b"x" * 10)
    assert connection.socket.writable
    connection.socket.send(b"x")
    assert not connection.socket.writable
    server.taking.set()
    assert await connection.next() == ("writable", None)
    assert connection.socket.writable
    connection.socket.abort()
    await serving
    assert await connection.next() == ("closed", None)
    assert connection.told.empty()


async def test_close_comes_after_what_was_sent_and_ends_with_the_peers_answer() -> None:
    """Messages first, then the close; nothing after it is told or sent."""
    server = Server()
    serving = asyncio.create_task(server.serve())
    connection = await server.opened
    connection.socket.send(b"last")
    connection.socket.close(4408, "slow")
    connection.socket.send(b"too late")
    connection.socket.close(1000)
    assert await server.sent.get() == {"type": "websocket.send", "text": "last"}
    assert await server.sent.get() == {"type": "websocket.close", "code": 4408, "reason": "slow"}
    server.arriving.put_nowait({"type": "websocket.receive", "text": "too late"})
    server.arriving.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await serving
    assert connection.told.get_nowait() == ("closed", 4408)
    assert connection.told.empty()
    assert server.sent.empty()


async def test_a_close_nobody_answers_is_bounded() -> None:
    """The server neither takes the close nor tells of an end: the application leaves."""
    server = Server()
    server.taking.clear()
    serving = asyncio.create_task(server.serve(close_timeout=0.05))
    connection = await server.opened
    connection.socket.close(1001)
    await serving
    assert await connection.next() == ("closed", 1001)
    assert len(asyncio.all_tasks()) == 1


async def test_abort_leaves_at_once_and_later_calls_do_nothing() -> None:
    """Also from within what the connection is told."""
    server = Server()
    server.taking.clear()
    serving = asyncio.create_task(server.serve())
    connection = await server.opened
    connection.socket.send(b"never taken")
    while not serving.done():  # also while it is on its way out
        connection.socket.abort()
        await asyncio.sleep(0)
    await serving
    assert await connection.next() == ("closed", None)
    connection.socket.send(b"more")
    connection.socket.ping()
    connection.socket.close(1000)
    connection.socket.abort()
    assert server.sent.empty()


async def test_a_server_that_fails_to_send_ends_the_connection() -> None:
    """Servers differ in what they raise when the peer is gone."""
    server = Server()

    async def fail(_: Any) -> None:
        raise OSError("gone")

    server.send = fail  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve())
    connection = await server.opened
    connection.socket.send(b"hello")
    await serving
    assert await connection.next() == ("closed", None)


async def test_a_cancelled_application_tells_its_connection() -> None:
    """A server that cancels is obeyed, and the connection still learns of the end."""
    server = Server()
    serving = asyncio.create_task(server.serve())
    connection = await server.opened
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert await connection.next() == ("closed", None)


async def test_under_our_own_host_it_hands_the_connection_over_and_returns() -> None:
    """No coroutine stays."""
    server = Server()
    handed_over: list[object] = []
    server.scope["extensions"] = {EXTENSION: handed_over.append}
    await server.serve()
    assert handed_over == [server.open]


def test_the_test_client_talks_to_a_connection() -> None:
    """The whole way in Starlette's client, which has no server at all."""

    class Echo(Recorder):
        def on_text(self, text: str) -> None:
            if text == "close":
                self.socket.close(4400, "as you wish")
            else:
                self.socket.send(json.dumps({"echo": text}).encode())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await serve_socket(scope, receive, send, Echo)

    with TestClient(app).websocket_connect("/") as socket:
        socket.send_text("hello")
        assert socket.receive_json() == {"echo": "hello"}
        socket.send_text("close")
        assert socket.receive() == {"type": "websocket.close", "code": 4400, "reason": "as you wish"}


async def test_a_ping_is_answered_when_the_server_has_taken_what_was_sent_before() -> None:
    """Acceptance by the transport stands in for the pong that ASGI cannot show."""
    server = Server()
    serving = asyncio.create_task(server.serve())
    connection = await server.opened
    server.taking.clear()
    connection.socket.send(b"first")
    connection.socket.ping()
    for _ in range(5):
        await asyncio.sleep(0)
    assert connection.told.empty()

    server.taking.set()

    assert await connection.next() == ("pong", None)
    assert server.texts() == ["first"]
    server.arriving.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await serving

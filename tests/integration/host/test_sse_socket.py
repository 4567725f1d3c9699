"""The socket of an SSE stream, on a server whose peer the test plays."""

import asyncio
from typing import Any

import pytest

from app.core.close_codes import CloseCode
from app.gateway import sse_socket
from app.gateway.socket import OUTGOING, Socket
from app.gateway.sse_socket import serve_stream

from .recorder import PATIENCE, Recorder, eventually


class Outgoing:
    """What the peer has not acknowledged, as the test says."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self.bytes: int | None = 0
        self.aborted = False

    def unacknowledged(self) -> int | None:
        return self.bytes

    def abort(self) -> None:
        self.aborted = True
        self._server.disconnect()


class Server:
    """An ASGI server; `taking` says whether it takes what is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.arriving.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        self.taking = asyncio.Event()
        self.taking.set()
        self.opened: asyncio.Future[Recorder] = asyncio.get_running_loop().create_future()
        self.scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "extensions": {}}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_complete(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False

    async def send(self, message: Any) -> None:
        await self.taking.wait()
        self.sent.append(message)
        if message.get("more_body") is False:
            self.disconnect()  # as every server says once an answer is complete

    def open(self, socket: Socket) -> Recorder:
        recorder = Recorder(socket)
        self.opened.set_result(recorder)
        return recorder

    async def serve(self) -> None:
        await asyncio.wait_for(serve_stream(self.scope, self.arriving.get, self.send, self.open), PATIENCE)

    def disconnect(self) -> None:
        self.arriving.put_nowait({"type": "http.disconnect"})


async def started(server: Server) -> tuple[asyncio.Task[None], Recorder]:
    serving = asyncio.create_task(server.serve())
    return serving, await asyncio.wait_for(server.opened, PATIENCE)


async def test_the_answer_begins_with_the_first_thing_to_say() -> None:
    """One writer for what is sent in one turn; each message with the position that was told for it."""
    server = Server()
    serving, connection = await started(server)
    await asyncio.sleep(0)
    assert server.sent == []

    beside = connection.socket.beside
    assert beside is not None
    for number in range(3):
        beside.position(f"p{number // 2}")
        connection.socket.send(b"%d" % number)
    await eventually(lambda: server.body)
    server.disconnect()
    await serving

    start, body = server.sent
    assert (start["status"], dict(start["headers"])[b"content-type"]) == (200, b"text/event-stream")
    retry, rest = body["body"].split(b"\n\n", 1)
    assert retry.startswith(b"retry: ")
    assert rest == b"id: p0\ndata: 0\n\ndata: 1\n\nid: p1\ndata: 2\n\n"
    assert await connection.next() == ("closed", None)


async def test_a_pong_waits_until_the_peer_has_acknowledged_what_came_before_the_ping() -> None:
    """Not the ping itself, nor what was sent since."""
    server = Server()
    outgoing = server.scope["extensions"][OUTGOING] = Outgoing(server)
    serving, connection = await started(server)
    connection.socket.send(b"x" * 100)
    await eventually(lambda: server.body)
    outgoing.bytes = 4

    connection.socket.ping()
    connection.socket.send(b"y")
    await eventually(lambda: b"y" in server.body)
    for unacknowledged in (100, 50, 14):
        outgoing.bytes = unacknowledged
        await asyncio.sleep(0.05)
        assert connection.told.empty()
    outgoing.bytes = len(b":\n\n" + b"data: y\n\n")

    assert await connection.next() == ("pong", None)
    server.disconnect()
    await serving


@pytest.mark.parametrize("knows", [True, False])
async def test_where_nobody_knows_it_is_enough_that_the_server_took_it(knows: bool) -> None:
    """On another server, or another system."""
    server = Server()
    if knows:
        server.scope["extensions"][OUTGOING] = outgoing = Outgoing(server)
        outgoing.bytes = None
    serving, connection = await started(server)
    server.taking.clear()
    connection.socket.send(b"x")
    connection.socket.ping()
    await asyncio.sleep(0.05)
    assert connection.told.empty()
    assert not connection.socket.writable

    server.taking.set()

    assert await connection.next() == ("pong", None)
    server.disconnect()
    await serving


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (CloseCode.BAD_REQUEST, 400),
        (CloseCode.NOT_ALLOWED, 403),
        (CloseCode.REPLACED, 409),
    ],
)
async def test_an_end_for_good_is_a_status_before_the_answer_and_an_id_after_it(
    code: CloseCode, status: int
) -> None:
    """A browser stops at the one, and brings the other back to be stopped."""
    before, after = Server(), Server()
    first, second = await started(before), await started(after)
    second[1].socket.send(b"{}")

    for serving, connection in (first, second):
        connection.socket.close(code, "so it is")
        connection.socket.send(b"too late")
        await serving
        assert await connection.next() == ("closed", code)

    assert before.sent[0]["status"] == status
    assert before.body == after.body.rpartition(b"data: ")[2].removesuffix(b"\n\n")
    assert b'"message":"so it is"' in before.body
    assert after.sent[0]["status"] == 200
    assert b"id: !%d\ndata: " % code in after.body
    assert before.is_complete
    assert after.is_complete


async def test_a_token_s_end_is_a_status_before_the_answer_and_passes_after_it() -> None:
    """A browser that comes back has a new cookie by then, or is told 401: nothing need stop it for good."""
    before, after = Server(), Server()
    first, second = await started(before), await started(after)
    second[1].socket.position("p")
    second[1].socket.send(b"{}")

    for serving, connection in (first, second):
        connection.socket.close(CloseCode.UNAUTHENTICATED, "expired")
        await serving

    assert before.sent[0]["status"] == 401
    assert after.sent[0]["status"] == 200
    assert b"!" not in after.body
    assert b'"code":"unauthenticated"' in after.body


@pytest.mark.parametrize("code", [CloseCode.GOING_AWAY, CloseCode.TOOK_NOTHING, CloseCode.INTERNAL_ERROR])
async def test_an_end_that_passes_is_the_end_of_a_stream(code: CloseCode) -> None:
    """Also when nothing had been said: any status but 200 would stop a browser for good."""
    server = Server()
    serving, connection = await started(server)
    connection.socket.close(code, "later")
    await serving

    assert server.sent[0]["status"] == 200
    assert b"id:" not in server.body
    assert (b'"type":"error"' in server.body) is (code is not CloseCode.GOING_AWAY)
    assert server.is_complete


@pytest.mark.parametrize("own_host", [True, False])
async def test_a_server_that_takes_nothing_does_not_hold_the_end_up(
    own_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under our own host the connection is dropped; elsewhere it is left to the server."""
    monkeypatch.setattr(sse_socket, "CLOSE_TIMEOUT", 0.05)
    server = Server()
    outgoing = Outgoing(server)
    if own_host:
        server.scope["extensions"][OUTGOING] = outgoing
    serving, connection = await started(server)
    connection.socket.send(b"x")
    server.taking.clear()
    connection.socket.close(CloseCode.TOOK_NOTHING)

    await serving

    assert await connection.next() == ("closed", CloseCode.TOOK_NOTHING)
    assert outgoing.aborted is own_host


async def test_a_server_that_raises_once_the_peer_is_gone_ends_it() -> None:
    """Servers differ in what they do then."""
    server = Server()

    async def refuse(message: Any) -> None:
        raise OSError("gone")

    server.send = refuse  # type: ignore[method-assign]
    serving, connection = await started(server)
    connection.socket.send(b"x")

    await serving

    assert await connection.next() == ("closed", None)

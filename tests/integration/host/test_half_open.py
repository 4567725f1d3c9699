"""Connections that never finish a request head are dropped in time; others are not."""

import asyncio
import importlib.util
import socket
import time
from contextlib import AsyncExitStack

import pytest

from app.gateway.uvicorn_host import HostOptions

from .hosted import Hosted, hosted
from .raw import RawClient, raw_client
from .recorder import PATIENCE, eventually

pytestmark = [
    pytest.mark.usefixtures("quiet"),
    pytest.mark.parametrize(
        "parser",
        [
            "h11",
            pytest.param(
                "httptools",
                marks=pytest.mark.skipif(
                    importlib.util.find_spec("httptools") is None, reason="httptools is not installed"
                ),
            ),
        ],
    ),
]

TIMEOUT = HostOptions(handshake_timeout=0.3)
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("start", [b"", b"GET /ws?user_id=1 HTTP/1.1\r\nHost", b"G"])
async def test_a_request_head_that_never_ends_ends_the_connection(parser: str, start: bytes) -> None:
    """Not a byte, or half a head: the connection is gone after the handshake timeout, and not before."""
    async with hosted(TIMEOUT, http=parser) as host:
        began = time.monotonic()  # before the server can have accepted it, which is when its time begins
        async with raw_client(host.address) as client:
            client.send(start)
            assert await client.read_to_end() == b""
            assert time.monotonic() - began >= 0.3


async def test_dribbling_bytes_does_not_buy_time(parser: str) -> None:
    """The limit counts from the beginning of the head."""
    async with hosted(TIMEOUT, http=parser) as host, raw_client(host.address) as client:
        dribble = asyncio.create_task(_dribble(client))
        assert await client.read_to_end() == b""
        dribble.cancel()


async def test_the_second_head_of_a_connection_is_limited_too(parser: str) -> None:
    """A finished request does not lift the limit."""
    async with hosted(TIMEOUT, http=parser) as host, raw_client(host.address) as client:
        client.send(HEAD)
        await client._reader.readuntil(b"ok")
        client.send(b"GET / HTTP/1.1\r\n")
        assert await client.read_to_end() == b""


async def test_one_too_many_ends_the_oldest(parser: str) -> None:
    """And no other: whoever has completed a request, or has left, is not counted."""
    async with hosted(HostOptions(half_open=2), http=parser) as host, AsyncExitStack() as stack:

        async def open_one(said: bytes, *, of: int) -> RawClient:
            client = await stack.enter_async_context(raw_client(host.address))
            client.send(said)
            await eventually(lambda: len(host.server.server_state.connections) == of)
            return client

        asked = await open_one(HEAD, of=1)
        await asked._reader.readuntil(b"ok")
        (await open_one(HEAD[:5], of=2)).reset()
        await eventually(lambda: len(host.server.server_state.connections) == 1)
        oldest = await open_one(HEAD[:5], of=2)
        younger = await open_one(b"", of=3)
        youngest = await open_one(HEAD[:5], of=3)

        assert await oldest.read_to_end() == b""
        for one, rest in ((asked, HEAD), (younger, HEAD), (youngest, HEAD[5:])):
            one.send(rest)
            await one._reader.readuntil(b"ok")


async def test_a_crowd_that_comes_at_once_is_served(parser: str) -> None:
    """All are accepted before the first is read: whose request is here already owes nothing."""
    async with hosted(HostOptions(half_open=10), http=parser) as host, AsyncExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(host.address)) for _ in range(50)]
        for one in sockets:
            one.sendall(HEAD)
        for one in sockets:
            one.setblocking(False)
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(one, 100), PATIENCE)
            assert answer.startswith(b"HTTP/1.1 200")


async def test_a_slow_body_is_not_a_half_open_handshake(parser: str) -> None:
    """Once the head is there, the time belongs to the application."""
    async with hosted(TIMEOUT, http=parser) as host, raw_client(host.address) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        await host.requested.wait()
        await asyncio.sleep(0.6)
        client.send(b"ab")
        assert (await client._reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


async def test_a_websocket_outlives_the_handshake_timeout(parser: str) -> None:
    """An upgraded connection is no longer watched."""
    async with hosted(TIMEOUT, http=parser) as host, raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        await asyncio.sleep(0.6)
        connection.socket.send(b"still here")
        connection.socket.flush()
        assert await client.read_frame() == (1, b"still here")


async def test_what_is_sent_must_be_acknowledged_in_time(parser: str) -> None:
    """TCP_USER_TIMEOUT stands on HTTP connections, and at its own value on WebSockets."""
    options = HostOptions(request_user_timeout=30, socket_user_timeout=90)
    async with hosted(options, http=parser) as host, raw_client(host.address) as client:
        timeout = _user_timeout(await _only_connection(host), socket.TCP_USER_TIMEOUT)
        await client.handshake()
        await host.connection()

        assert timeout == 30_000
        assert _user_timeout(await _only_connection(host), socket.TCP_USER_TIMEOUT) == 90_000


async def _dribble(client: RawClient) -> None:
    client.send(b"GET / HTTP/1.1\r\n")
    while True:
        await asyncio.sleep(0.05)
        client.send(b"X-Slow: 1\r\n")


async def _only_connection(host: Hosted) -> object:
    await eventually(lambda: host.server.server_state.connections)
    [connection] = host.server.server_state.connections
    return connection


def _user_timeout(connection: object, option: int) -> int:
    transport = getattr(connection, "transport", None) or connection._transport
    return transport.get_extra_info("socket").getsockopt(6, option)

"""How long and how slow a request may be, by bytes on the wire."""

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import aside
from tests.support.client import RawClient, raw_client
from tests.support.postgres import Database
from tests.support.roles import as_service
from tests.support.server import Server

HEAD, BODY = 4000, 10_000
PARSERS = ["h11", *(["httptools"] if importlib.util.find_spec("httptools") else [])]


@pytest.fixture(scope="module", params=PARSERS)
def module_server(house: Database, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(
        as_service(house),
        *("--http", request.param),
        head_size=HEAD,
        body_size=BODY,
        body_timeout=1,
        handshake_timeout=1,
    )
    aside(server.healthy())
    yield server
    server.end()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[RawClient]:
    async with raw_client(server.address) as one:
        yield one


def post(length: int) -> bytes:
    return (
        f"POST /realtime/sync HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def status_and_answer(response: bytes) -> tuple[int, Any]:
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else None


async def dribble(client: RawClient, data: bytes) -> None:
    while True:
        client.send_bytes(data)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n"])
async def test_a_head_without_end_is_told_and_ended(client: RawClient, start: bytes) -> None:
    """As one line, one header or many, in many pieces: 431, and the connection goes."""
    client.send_bytes(start)
    more = asyncio.create_task(dribble(client, (b"X: y\r\n" if start.endswith(b"1.1\r\n") else b"x") * 300))
    response = await client.read_to_end()
    more.cancel()

    assert response.startswith(b"HTTP/1.1 431 ")


async def test_a_head_within_the_limit_is_taken_after_another_one(client: RawClient) -> None:
    """What came before on the same connection, bodies included, does not count."""
    for _ in range(3):
        client.send_bytes(post(2) + b"{}")
        head = await client._reader.readuntil(b"\r\n\r\n")
        assert b" 422 " in head.split(b"\r\n")[0]
        size = int(head.lower().partition(b"content-length:")[2].split()[0])
        await client._reader.readexactly(size)
        client.send_bytes(b"GET /realtime/ready HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (HEAD // 2))
        await asyncio.sleep(0)
        client.send_bytes(b"\r\n\r\n")
        head = await client._reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0]
        await client._reader.readuntil(b"}")


async def test_a_body_that_dribbles_is_told_so_and_its_connection_ended(client: RawClient) -> None:
    """Whatever its length was to be; every byte comes in time, and yet it takes too long."""
    client.send_bytes(post(5000))
    more = asyncio.create_task(dribble(client, b" "))
    response = await client.read_until(b"}")  # what is sent after the end could cost us the rest
    more.cancel()
    assert await client.read_to_end() == b""
    status, answer = status_and_answer(response)

    assert (status, answer["code"]) == (408, "too_slow")


async def test_a_body_that_never_comes_is_told_so_and_its_connection_ended(client: RawClient) -> None:
    """Not a byte of it."""
    client.send_bytes(post(5000))
    status, answer = status_and_answer(await client.read_to_end())

    assert (status, answer["code"]) == (408, "too_slow")


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large_is_told_so(client: RawClient, announced: bool) -> None:
    """By what comes, not by what was announced."""
    if announced:
        client.send_bytes(post(BODY + 1) + b" " * (BODY + 1))
    else:
        start = post(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        client.send_bytes(start + b"%x\r\n%b\r\n" % (BODY + 1, b" " * (BODY + 1)))
    head = await client._reader.readuntil(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 413 ")
    assert b'"too_large"' in await client._reader.readuntil(b"}")


async def test_a_request_nobody_reads_the_body_of_does_not_keep_its_connection(client: RawClient) -> None:
    """The answer comes at once, and then the rest has as long as another head would."""
    client.send_bytes(b"GET /realtime/ready HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    more = asyncio.create_task(dribble(client, b" "))
    response = await client.read_to_end()
    more.cancel()

    assert response.startswith(b"HTTP/1.1 200 ")


async def test_a_url_that_is_too_long_is_told_so(client: RawClient) -> None:
    """In one piece it is complete before anybody can measure it; then the endpoint's limit holds."""
    client.send_bytes(
        b"GET /realtime/ready?x=" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    status, answer = status_and_answer(await client.read_to_end())

    assert (status, answer["code"]) == (414, "too_large")


async def test_a_body_that_comes_with_a_wait_ends_it(client: RawClient) -> None:
    """Nobody reads it, and nothing is left behind in the log when it is too large."""
    head = b"GET /realtime/sync?user_id=nobody&wait=20 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    client.send_bytes(head % (BODY + 1) + b" " * (BODY + 1))
    status, answer = status_and_answer(await client.read_to_end())

    assert (status, answer["messages"]) == (200, [])

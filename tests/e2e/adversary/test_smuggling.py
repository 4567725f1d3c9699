"""Heads that a proxy in front and we could read in different ways, on each HTTP parser that uvicorn has here."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.e2e.adversary.conftest import besieged, good
from tests.support import host as app
from tests.support.client import raw_client
from tests.support.postgres import Database
from tests.support.server import Server

PARSERS = ["h11", *(["httptools"] if importlib.util.find_spec("httptools") else [])]
INNER = b"GET /realtime/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED_INNER = b"0\r\n\r\n" + INNER


@pytest.fixture(scope="module", params=PARSERS)
def module_server(house: Database, key_file: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """One service for each parser."""
    with besieged(house, key_file, "--http", request.param) as server:
        yield server


def post(*headers: bytes, body: bytes = b"") -> bytes:
    lines = [b"POST /realtime/devices HTTP/1.1", b"Host: localhost", *headers, b"", body]
    return b"\r\n".join(lines)


AMBIGUOUS = {
    "a length, and chunks": post(
        b"Content-Length: %d" % len(CHUNKED_INNER), b"Transfer-Encoding: chunked", body=CHUNKED_INNER
    ),
    "chunks, and a length": post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=CHUNKED_INNER),
    "two lengths": post(b"Content-Length: 0", b"Content-Length: %d" % len(INNER), body=INNER),
    "two lengths in one": post(b"Content-Length: 0, %d" % len(INNER), body=INNER),
    "a length with a sign": post(b"Content-Length: +%d" % len(INNER), body=INNER),
    "a negative length": post(b"Content-Length: -1", body=INNER),
    "a length in hexadecimals": post(b"Content-Length: 0x10", body=INNER),
    "a length beyond numbers": post(b"Content-Length: 99999999999999999999999", body=INNER),
    "an unknown encoding": post(b"Transfer-Encoding: xchunked", body=CHUNKED_INNER),
    "chunks, then something else": post(b"Transfer-Encoding: chunked, identity", body=CHUNKED_INNER),
    "chunks twice": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=CHUNKED_INNER),
    "an encoding with a tab before its colon": post(b"Transfer-Encoding\t: chunked", body=CHUNKED_INNER),
    "a space before the colon": post(b"Content-Length : %d" % len(INNER), body=INNER),
    "a chunk of too many": post(b"Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\n" + INNER),
    "a chunk of no number": post(b"Transfer-Encoding: chunked", body=b"-1\r\n" + INNER),
    "a NUL": post(b"X: a\x00b", body=INNER),
    "a bare CR": post(b"X: a\rTransfer-Encoding: chunked", body=INNER),
    "no name": post(b": x", body=INNER),
    "no colon": post(b"Transfer-Encoding chunked", body=INNER),
    "two hosts": post(b"Host: elsewhere", b"Content-Length: 0"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
    "nothing like HTTP": b"\x00" * 100 + b"\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_what_can_be_read_in_two_ways_is_answered_once_and_ends(
    server: Server, request_bytes: bytes
) -> None:
    """By an error, and its connection with it; what is hidden in it is no request of its own."""
    since = len(server.log)
    async with raw_client(server.address) as client:
        client.send_bytes(request_bytes)
        answer = await client.read_to_end()

    statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
    assert statuses in ([b"400"], [b"401"]), answer
    assert "smuggled" not in server.log[since:]


UPGRADE = (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13")
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
AFTER = b"Content-Length: %d" % len(INNER)


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        pytest.param([*UPGRADE, KEY, AFTER], INNER, id="a body"),
        pytest.param([*UPGRADE, KEY, b"Transfer-Encoding: chunked"], CHUNKED_INNER, id="a body in chunks"),
        pytest.param([*UPGRADE, KEY, KEY], INNER, id="two keys"),
        pytest.param([*UPGRADE], INNER, id="no key"),
        pytest.param([*UPGRADE, b"Sec-WebSocket-Key: short"], INNER, id="a key of another length"),
        pytest.param([*UPGRADE, KEY, b"Sec-WebSocket-Version: 8"], INNER, id="two versions"),
        pytest.param([*UPGRADE, KEY, b"Origin: https://a", b"Origin: https://b"], INNER, id="two origins"),
    ],
)
async def test_an_upgrade_hides_no_request(
    server: Server, host: asyncpg.Connection, headers: list[bytes], after: bytes
) -> None:
    """It is refused, or what follows it are frames, and bad ones; never a second answer of HTTP."""
    user, since = await app.add_user(host), len(server.log)
    authorization = f"Authorization: {good(user)['Authorization']}".encode()
    lines = [b"GET /realtime/ws HTTP/1.1", b"Host: localhost", authorization, *headers, b"", after]
    async with raw_client(server.address) as client:
        client.send_bytes(b"\r\n".join(lines))
        answer = await client.read_to_end()

    assert len(re.findall(rb"HTTP/1\.1 \d+", answer)) <= 1, answer
    assert b"mood" not in answer
    assert "smuggled" not in server.log[since:]


async def test_rubbish_after_an_answer_has_begun_ends_it(server: Server, host: asyncpg.Connection) -> None:
    """A stream whose request goes on with what is no chunk: no second answer within the first."""
    authorization = good(await app.add_user(host))["Authorization"].encode()
    async with raw_client(server.address) as client:
        client.send_bytes(
            b"GET /realtime/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Authorization: " + authorization + b"\r\n\r\n"
        )
        begun = await client.read_until(b"connected")
        client.send_bytes(b"no chunk\r\n\r\n")
        rest = await client.read_to_end()

    assert begun.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1" not in rest


async def test_requests_without_end_are_not_kept_for_later(
    server: Server, host: asyncpg.Connection, request: pytest.FixtureRequest
) -> None:
    """A parser that reads them all at once takes some and ends it; one that reads them in turn may go on."""
    before = server.memory()
    async with raw_client(server.address) as client:
        client.send_bytes(b"GET /realtime/ready HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3000)
        statuses: list[int] = []
        while len(statuses) < 100 and 400 not in statuses:
            line = await client.read_until(b"\r\n")
            statuses += [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", line)]
    grown = server.memory() - before

    assert (400 in statuses) == (request.node.callspec.params["module_server"] == "httptools")
    assert grown < 12 << 20, f"{grown >> 20} MiB"


async def test_line_ends_in_a_request_stay_in_it(server: Server, host: asyncpg.Connection) -> None:
    """They forge neither a header of the answer nor a line of the log."""
    user = await app.add_user(host)
    forged = "%0d%0aSet-Cookie:%20forged=1%0d%0a%0d%0aERROR:%20forged"
    since = len(server.log)
    for path in (
        f"/realtime/{forged}",
        f"/realtime/ws{forged}",
        f"/realtime/devices?user_id={user}&x={forged}",
        f"/realtime/devices?user_id={forged}",
        f"/realtime/events?user_id={user}&position={forged}&device_token={forged}",
        f"/realtime/events?ticket={forged}",
    ):
        answer = await server.request("GET", path, headers={**good(user), "Accept": "text/event-stream"})
        assert answer.status_code < 500
        assert "set-cookie" not in answer.headers
    async with raw_client(server.address) as client:
        head = await client.handshake(f"/realtime/ws?user_id={forged}&position={forged}")
        assert b"forged" not in head

    assert not re.search(r"^(Set-Cookie|ERROR)", server.log[since:], re.MULTILINE)

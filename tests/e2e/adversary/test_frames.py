"""Frames that are meant to cost more than they are worth; their sender has a good token."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import asyncpg
import pytest
from websockets.frames import Frame, Opcode

from tests.e2e.adversary.conftest import HEARTBEAT, attacker, good
from tests.support import host as app
from tests.support.client import RawClient
from tests.support.server import PATIENCE, Server

LIMIT = 64 << 10
ATTACKERS = 10


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


@pytest.fixture
async def user(host: asyncpg.Connection) -> str:
    """Whose token the attacker has."""
    return await app.add_user(host)


@pytest.fixture
async def attackers(server: Server, user: str) -> AsyncIterator[list[RawClient]]:
    """Several connections of one attacker, none of which reads much."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(attacker(server, user, receive_buffer=4096))
            for _ in range(ATTACKERS)
        ]


# ---- compression


async def zeros(count: int, *, wbits: int, end: int) -> bytes:
    """So many, squeezed, while the witness of the attack goes on answering pings: it takes a second or more."""

    def squeezed() -> bytes:
        squeeze = zlib.compressobj(9, wbits=wbits)
        return squeeze.compress(bytes(count)) + squeeze.flush(end)

    return await asyncio.to_thread(squeezed)


async def test_compression_is_never_agreed_on_and_a_bomb_not_opened(server: Server, user: str) -> None:
    """What 16 MiB of zeros become fits into one message; without an extension its bit is a violation."""
    bomb = await zeros(16 << 20, wbits=-15, end=zlib.Z_SYNC_FLUSH)
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, permessage-deflate"
    async with attacker(server, user, offer) as client:
        first, *rest = frame(Opcode.TEXT, bomb[:-4])
        client.send_bytes(bytes([first | 0x40, *rest]))

        assert (await client.read_close())[0] == 1002
        assert await client.read_to_end() == b""


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip", "br"])
async def test_a_compressed_body_is_not_opened(server: Server, user: str, encoding: str) -> None:
    """It is no JSON: 422, at once, and nothing as large as what is in it."""
    bomb = await zeros(64 << 20, wbits=31, end=zlib.Z_FINISH)
    before = server.memory()

    answer = await server.request(
        "POST",
        "/realtime/sync",
        content=bomb,
        headers={**good(user), "Content-Encoding": encoding, "Content-Type": "application/json"},
    )

    assert answer.status_code in {400, 415, 422}
    assert server.memory() - before < 16 << 20


# ---- floods


def pings() -> Iterator[bytes]:
    while True:
        yield frame(Opcode.PING) * 1000


def unasked_pongs() -> Iterator[bytes]:
    while True:
        yield frame(Opcode.PONG, b"1234") * 1000


def endless_fragments() -> Iterator[bytes]:
    yield frame(Opcode.TEXT, b"x", fin=False)
    while True:
        yield frame(Opcode.CONT, fin=False) * 1000


def letters() -> Iterator[bytes]:
    yield frame(Opcode.TEXT, b"x", fin=False)
    while True:
        yield frame(Opcode.CONT, b"x", fin=False) * 1000


def texts() -> Iterator[bytes]:
    while True:
        yield frame(Opcode.TEXT, b"ping") * 1000


def megabytes() -> Iterator[bytes]:
    while True:
        yield frame(Opcode.BINARY, b"x" * (1 << 20))


FLOODS: dict[str, tuple[Callable[[], Iterator[bytes]], int]] = {
    "pings": (pings, 1008),
    "pongs nobody asked for": (unasked_pongs, 1008),
    "empty fragments": (endless_fragments, 1008),
    "fragments of a letter": (letters, 1008),
    "texts": (texts, 4400),
    "messages of a mebibyte": (megabytes, 4400),
}


@pytest.mark.parametrize(("flood", "code"), FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_ends_its_connection(
    attackers: list[RawClient], flood: Callable[[], Iterator[bytes]], code: int
) -> None:
    """However many of them there are, and though nobody reads the answers."""

    async def attack(client: RawClient) -> int:
        for data in flood():
            client.send_bytes(data)
            try:
                async with asyncio.timeout(0.02):
                    return (await client.read_close())[0]
            except TimeoutError:
                continue
        raise AssertionError

    async with asyncio.timeout(PATIENCE):
        codes = await asyncio.gather(*map(attack, attackers))

    assert codes == [code] * ATTACKERS


# ---- slowness


async def test_who_never_finishes_a_frame_is_dropped_as_silent(
    server: Server, attackers: list[RawClient]
) -> None:
    """A byte now and then, of a frame in which no pong has room; dropped when a ping has gone unanswered."""
    began = asyncio.get_running_loop().time()
    beginning = frame(Opcode.TEXT, b"x" * LIMIT)[:100]

    async def attack(client: RawClient) -> None:
        ended = asyncio.create_task(client.read_to_end())
        client.send_bytes(beginning)
        while not ended.done():
            client.send_bytes(b"x")
            await asyncio.wait([ended], timeout=0.05)

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*map(attack, attackers))

    assert asyncio.get_running_loop().time() - began >= HEARTBEAT

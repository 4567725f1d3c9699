"""What a client can do wrong: it is told the code of its fault, and the log stays free of tracebacks."""

import pytest
from websockets.frames import Opcode

from .hosted import Hosted
from .raw import frame, raw_client
from .recorder import eventually

pytestmark = pytest.mark.usefixtures("quiet")

SIZE = 64 << 10


async def test_a_binary_message_is_told_with_its_size(host: Hosted) -> None:
    """The socket stays open; what to say about it is the connection's business."""
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        client.send(frame(Opcode.BINARY, b"123") + frame(Opcode.TEXT, b"next"))
        assert [await connection.next(), await connection.next()] == [("binary", 3), ("text", "next")]


async def test_a_message_above_the_limit_is_told_and_the_next_one_arrives(host: Hosted) -> None:
    """One byte too many is too large; at the limit it is not."""
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        client.send(frame(Opcode.TEXT, b"x" * (SIZE + 1)) + frame(Opcode.TEXT, b"y" * SIZE))
        assert await connection.next() == ("too_large", None)
        assert await connection.next() == ("text", "y" * SIZE)


async def test_what_looks_like_a_frame_within_another_is_not_one(host: Hosted) -> None:
    """A read that holds the rest of a message is not mistaken for a message of its own."""
    inner = b"\x81\x85\0\0\0\0inner"
    outer = b"\x81" + bytes([0x80 | len(inner)]) + b"\0\0\0\0" + inner
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        [live] = host.server.server_state.connections
        client.send(outer[:6])
        await eventually(lambda: live._inbound is not None)
        client.send(outer[6:])
        client.end()
        assert await connection.next() == ("closed", 1007)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        pytest.param(frame(Opcode.TEXT, b"\xff"), 1007, id="invalid UTF-8"),
        pytest.param(
            frame(Opcode.TEXT, b"\xc3", fin=False) + frame(Opcode.CONT, b"x"),
            1007,
            id="cut UTF-8 in fragments",
        ),
        pytest.param(frame(Opcode.CLOSE, b"\x03\xe8\xff"), 1007, id="invalid UTF-8 in a close reason"),
        pytest.param(b"\x81\x01x", 1002, id="not masked"),
        pytest.param(b"\xc1\x81\0\0\0\0x", 1002, id="reserved bit: compression nobody agreed on"),
        pytest.param(b"\x83\x80\0\0\0\0", 1002, id="unknown opcode"),
        pytest.param(frame(Opcode.CONT, b"x"), 1002, id="continuation of nothing"),
        pytest.param(frame(Opcode.TEXT, b"x", fin=False) * 2, 1002, id="a message within a message"),
        pytest.param(b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126, 1002, id="long ping"),
        pytest.param(b"\x89\xff" + (1 << 40).to_bytes(8) + b"\0\0\0\0", 1002, id="endless ping"),
        pytest.param(b"\x09\x80\0\0\0\0", 1002, id="fragmented ping"),
        pytest.param(frame(Opcode.CLOSE, b"\x03"), 1002, id="close code of one byte"),
        pytest.param(frame(Opcode.CLOSE, (999).to_bytes(2)), 1002, id="close code that does not exist"),
        pytest.param(b"\x81\xff" + (1 << 62).to_bytes(8) + b"\0\0\0\0", 1009, id="endless message"),
        pytest.param(frame(Opcode.PING) * 5000, 1008, id="thousands of frames in one read"),
    ],
)
async def test_a_violation_closes_the_connection_with_its_code(host: Hosted, raw: bytes, code: int) -> None:
    """Close frame, end of the connection, and `on_closed` with the same code."""
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        client.send(raw)
        assert await client.read_close() == code
        client.end()
        assert await connection.next() == ("closed", code)


async def test_who_goes_on_sending_is_told_the_code_too(host: Hosted) -> None:
    """Bytes that nobody reads would have TCP take back what was written before; so they are read, and dropped."""
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        client.send(frame(Opcode.TEXT, b"\xff") + bytes(8 << 20))
        await client.drained()
        assert await client.read_close() == 1007
        client.reset()
        assert await connection.next() == ("closed", 1007)


@pytest.mark.parametrize(
    "request_head",
    [
        pytest.param(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", id="no key"
        ),
        pytest.param(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            id="old version",
        ),
        pytest.param(
            b"POST /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            id="not a GET",
        ),
    ],
)
async def test_a_wrong_handshake_is_refused_over_http(host: Hosted, request_head: bytes) -> None:
    """An HTTP error and the end of the connection."""
    async with raw_client(host.address) as client:
        client.send(request_head)
        assert (await client.read_to_end()).startswith(b"HTTP/1.1 4")

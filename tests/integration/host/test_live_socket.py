"""The socket under uvicorn: what is sent arrives, what arrives is told, and how it ends."""

import asyncio
import gc

import pytest
import websockets
from annotated_types import Le
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode
from websockets.server import ServerProtocol

from app.gateway.uvicorn_host import HostOptions
from app.gateway.uvicorn_host.handshake import HandshakeProtocol
from app.gateway.uvicorn_host.inbound import FRAMES_AT_ONCE, FRAMES_PER_SECOND
from app.gateway.uvicorn_host.requests import RequestHeadLimit
from app.settings import Settings

from .hosted import Hosted, hosted
from .raw import RawClient, frame, raw_client
from .recorder import Recorder, eventually

pytestmark = pytest.mark.usefixtures("quiet")
WINDOW = 256
"""Messages that a client has to acknowledge at a time."""


async def test_everything_sent_arrives_in_order_whatever_its_size(host: Hosted) -> None:
    """Frames of every length encoding come through whole, between a thousand small ones."""
    sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 300_000]
    messages = [b"x" * size for size in sizes] + [b"%d" % number for number in range(1000)]
    async with websockets.connect(host.url, max_size=None) as client:
        connection = await host.connection()
        for message in messages:
            connection.socket.send(message)
        connection.socket.flush()
        received = [await client.recv(decode=False) for _ in messages]

    assert received == messages


async def test_an_attached_connection_leaves_no_task_and_no_handshake_behind(host: Hosted) -> None:
    """Once attached, the ASGI task, uvicorn's protocols and the parser are gone without the collector."""
    gc.collect()
    gc.disable()
    try:
        async with websockets.connect(host.url):
            await host.connection()
            await asyncio.sleep(0)
            kinds = HandshakeProtocol | RequestHeadLimit | ServerProtocol
            left = [each for each in gc.get_objects() if isinstance(each, kinds)]
            assert left == []
            assert not host.server.server_state.tasks
            assert len(host.server.server_state.connections) == 1
    finally:
        gc.enable()


async def test_a_ping_is_reported_when_the_client_has_answered_it(host: Hosted) -> None:
    """The pong to our ping is told, after everything the client sent before it."""
    async with websockets.connect(host.url) as client:
        connection = await host.connection()
        await client.send("before")
        connection.socket.ping()
        connection.socket.flush()

        assert await connection.next() == ("text", "before")
        assert await connection.next() == ("pong", None)
        assert connection.socket.confirms


async def test_a_pong_nobody_asked_for_is_not_reported(host: Hosted) -> None:
    """Unsolicited pongs, and those with another payload, confirm nothing."""
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        client.send(frame(Opcode.PONG))
        connection.socket.ping()
        connection.socket.flush()
        _, payload = await client.read_frame()
        client.send(frame(Opcode.PONG, b"other"))
        client.send(frame(Opcode.PONG, payload))
        client.send(frame(Opcode.PONG, payload))
        client.send(frame(Opcode.TEXT, b"after"))

        assert [await connection.next(), await connection.next()] == [("pong", None), ("text", "after")]


async def test_a_client_ping_is_answered_with_its_payload(host: Hosted) -> None:
    """A client that checks whether we live gets its answer; of several at once, the last."""
    async with raw_client(host.address) as client:
        await client.handshake()
        client.send(frame(Opcode.PING, b"first") + frame(Opcode.PING, b"second"))
        assert await client.read_frame() == (Opcode.PONG, b"second")
        client.send(frame(Opcode.PING))
        assert await client.read_frame() == (Opcode.PONG, b"")


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(frame(Opcode.PING) * 500, id="pings"),
        pytest.param(frame(Opcode.PONG, b"x") * 499 + frame(Opcode.PING), id="pongs"),
        pytest.param(
            frame(Opcode.TEXT, b"", fin=False)
            + frame(Opcode.CONT, fin=False) * 497
            + frame(Opcode.CONT)
            + frame(Opcode.PING),
            id="fragments",
        ),
    ],
)
async def test_a_client_that_floods_steadily_is_closed_too(host: Hosted, flood: bytes) -> None:
    """However slowly, so that no single read holds too many frames."""
    async with raw_client(host.address) as client:
        await client.handshake()
        await host.connection()
        rounds = 0
        client.send(flood)
        while (answer := await client.read_frame())[0] == Opcode.PONG:
            rounds += 1
            client.send(flood)

        assert (answer[0], answer[1][:2]) == (Opcode.CLOSE, (1008).to_bytes(2))
        assert rounds >= 2


async def test_who_answers_each_message_is_no_flood(host: Hosted) -> None:
    """An ack for each of very many messages, as fast as they come, is what a returning client says."""
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        for _ in range(20):
            for _ in range(WINDOW):
                connection.socket.send(b"message")
            connection.socket.flush()
            for _ in range(WINDOW):
                assert (await client.read_frame())[0] == Opcode.TEXT
            client.send(frame(Opcode.TEXT, b"ack") * WINDOW)
            for _ in range(WINDOW):
                assert await connection.next() == ("text", "ack")


def test_what_a_client_may_be_asked_to_answer_at_once_is_no_flood() -> None:
    """Nor is what it may say of its own: settings stay below what ends a connection."""

    def most(setting: str) -> int:
        [bound] = [one.le for one in Settings.model_fields[setting].metadata if isinstance(one, Le)]
        return int(bound)

    assert most("window") < FRAMES_AT_ONCE
    assert most("inbound_rate") < FRAMES_PER_SECOND


async def test_a_client_may_speak_before_it_is_accepted(host: Hosted) -> None:
    """What arrives between the request and the accept is told after it, in order and complete."""
    host.gate.clear()
    async with raw_client(host.address) as client:
        handshake = asyncio.create_task(client.handshake())
        await _until_upgraded(host)
        early = frame(Opcode.TEXT, b"one") + frame(Opcode.TEXT, b"two")
        client.send(early[:-2])
        await asyncio.sleep(0.05)
        host.gate.set()
        assert (await handshake).startswith(b"HTTP/1.1 101")
        connection = await host.connection()
        client.send(early[-2:])

        assert [await connection.next(), await connection.next()] == [("text", "one"), ("text", "two")]


async def test_a_client_that_leaves_before_the_accept_is_told_as_closed(host: Hosted) -> None:
    """A connection that is gone by the time of the accept ends like any other."""
    host.gate.clear()
    async with raw_client(host.address) as client:
        handshake = asyncio.create_task(client.handshake())
        await _until_upgraded(host)
        handshake.cancel()
        client.reset()
        await _until_empty(host)
        host.gate.set()


async def test_an_application_that_does_not_attach_gets_uvicorns_own_protocol(host: Hosted) -> None:
    """Plain ASGI WebSockets beside ours keep working."""
    async with websockets.connect(host.url.replace("/ws", "/own")) as client:
        await client.send("hello")
        assert await client.recv() == "hello"


async def test_such_an_application_is_told_what_came_before_its_accept(host: Hosted) -> None:
    """Keeping it for an attach does not lose it for others."""
    host.gate.clear()
    async with raw_client(host.address) as client:
        handshake = asyncio.create_task(client.handshake(b"/own"))
        await _until_upgraded(host)
        client.send(frame(Opcode.TEXT, b"early"))
        await asyncio.sleep(0.05)
        host.gate.set()
        await handshake
        assert await client.read_frame() == (Opcode.TEXT, b"early")


async def test_a_connection_that_breaks_during_the_accept_is_told_as_closed(host: Hosted) -> None:
    """The transport is already closing, uvicorn's protocol does not know it yet."""
    host.gate.clear()
    async with raw_client(host.address) as client:
        handshake = asyncio.create_task(client.handshake())
        await _until_upgraded(host)
        [protocol] = host.server.server_state.connections
        host.gate.set()  # wakes the application before ...
        protocol.transport.close()  # ... this is told
        connection = await host.connection()
        assert await connection.next() == ("closed", None)
        handshake.cancel()


async def test_a_refusal_over_http_is_no_error_of_the_application(host: Hosted) -> None:
    """The client gets status and text; uvicorn logs no error about a handshake that never came."""
    async with raw_client(host.address) as client:
        assert (await client.handshake(b"/refused")).startswith(b"HTTP/1.1 429")
        assert await client.read_to_end() == b"later"
    await _until_empty(host)


async def test_a_parser_is_kept_only_in_the_middle_of_a_message(host: Hosted) -> None:
    """Between messages a connection remembers nothing of them."""
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        [live] = host.server.server_state.connections
        for text in (b"short", b"x" * 200):
            client.send(frame(Opcode.TEXT, text))
            await connection.next()
            assert live._inbound is None
        client.send(frame(Opcode.TEXT, b"x" * 200)[:50])
        await eventually(lambda: live._inbound is not None)


@pytest.mark.parametrize("code", [1001, 4408])
async def test_close_tells_the_client_the_code_and_waits_for_its_echo(host: Hosted, code: int) -> None:
    """The client sees code and reason; the connection learns of the end with the same code."""
    async with websockets.connect(host.url) as client:
        connection = await host.connection()
        connection.socket.send(b"last")
        connection.socket.close(code, "é" * 100)

        assert await client.recv() == "last"
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
        assert closed.value.rcvd.reason == "é" * 61
        assert await connection.next() == ("closed", code)
    await _until_empty(host)


async def test_after_a_close_nothing_is_sent_or_told_and_nothing_raises(host: Hosted) -> None:
    """A closed socket takes every call and does nothing."""
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        connection.socket.close(1001)
        _use(connection)
        client.send(frame(Opcode.TEXT, b"too late") + frame(Opcode.CLOSE, (1001).to_bytes(2)))

        assert await client.read_close() == 1001
        assert await connection.next() == ("closed", 1001)
        _use(connection)
        connection.socket.abort()
        await asyncio.sleep(0.05)
        assert connection.told.empty()


async def test_a_client_that_never_echoes_the_close_is_dropped() -> None:
    """The wait for the echo is bounded."""
    async with hosted(HostOptions(close_timeout=0.1)) as host, raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        connection.socket.close(1001)
        assert await client.read_close() == 1001
        assert await connection.next() == ("closed", 1001)


@pytest.mark.parametrize(
    ("payload", "code"), [((1000).to_bytes(2) + b"bye", 1000), ((4000).to_bytes(2), 4000), (b"", 1005)]
)
async def test_a_client_that_closes_gets_its_code_back(host: Hosted, payload: bytes, code: int) -> None:
    """The close frame is echoed as it came, and told."""
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        client.send(frame(Opcode.CLOSE, payload) + frame(Opcode.TEXT, b"ignored"))
        assert await client.read_frame() == (Opcode.CLOSE, payload)
        assert await client.read_to_end() == b""
        assert await connection.next() == ("closed", code)


@pytest.mark.parametrize("way", [RawClient.reset, RawClient.end])
async def test_a_client_that_vanishes_is_told_as_dropped(host: Hosted, way: object) -> None:
    """A connection that ends without a close frame has no code."""
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        way(client)  # type: ignore[operator]
        assert await connection.next() == ("closed", None)
    await _until_empty(host)


async def test_abort_drops_the_connection_at_once(host: Hosted) -> None:
    """No close frame, no waiting."""
    async with raw_client(host.address) as client:
        await client.handshake()
        connection = await host.connection()
        connection.socket.send(b"never written")
        connection.socket.abort()
        assert await client.read_to_end() == b""
        assert await connection.next() == ("closed", None)
        connection.socket.abort()


async def test_a_reader_that_falls_behind_makes_the_socket_unwritable_until_it_reads() -> None:
    """`writable` follows the transport's buffer, and its return is told once."""
    async with hosted() as host, raw_client(host.address, limit=1024) as client:
        await client.handshake()
        connection = await host.connection()
        sent = 0
        while connection.socket.writable:
            connection.socket.send(b"x" * 50_000)
            connection.socket.flush()
            sent += 1
            await asyncio.sleep(0)
        for _ in range(sent):
            await client.read_frame()
        assert await connection.next() == ("writable", None)
        assert connection.socket.writable
        assert connection.told.empty()


async def test_a_burst_beyond_the_high_water_mark_shows_before_it_is_flushed() -> None:
    """A connection that sends in a loop while the socket is writable stops by itself."""
    options = HostOptions(high_water=20_000)
    async with hosted(options) as host, raw_client(host.address, limit=1024) as client:
        await client.handshake()
        connection = await host.connection()
        [live] = host.server.server_state.connections
        while connection.socket.writable:
            connection.socket.send(b"x" * 5_000)
        assert 20_000 < live._transport.get_write_buffer_size() < 50_000


async def test_a_peer_that_stopped_reading_can_be_dropped() -> None:
    """Abort does not wait for a buffer nobody empties; neither does close, for longer than its time."""
    async with hosted(HostOptions(close_timeout=0.1)) as host:
        for end in (lambda socket: socket.abort(), lambda socket: socket.close(4408)):
            async with raw_client(host.address, limit=1024) as client:
                await client.handshake()
                connection = await host.connection()
                while connection.socket.writable:
                    connection.socket.send(b"x" * 50_000)
                    connection.socket.flush()
                    await asyncio.sleep(0)
                end(connection.socket)
                assert (await connection.next())[0] == "closed"
            await _until_empty(host)


@pytest.mark.parametrize(
    "last_word", [frame(Opcode.CLOSE), frame(Opcode.CONT), b""], ids=["close", "violation", "silence"]
)
async def test_a_peer_that_ends_without_reading_is_dropped_in_time(last_word: bytes) -> None:
    """A close frame, a violation or a FIN of a peer whose buffers are full."""
    options = HostOptions(close_timeout=0.1)
    async with hosted(options) as host, raw_client(host.address, limit=1024) as client:
        await client.handshake()
        connection = await host.connection()
        while connection.socket.writable:
            connection.socket.send(b"x" * 50_000)
            connection.socket.flush()
            await asyncio.sleep(0)
        client.send(last_word)
        client.end()
        assert (await connection.next())[0] == "closed"


async def test_pongs_do_not_pile_up_for_a_peer_that_does_not_read_them() -> None:
    """While the socket is not writable, pings go unanswered: their answers would be kept without bound."""
    async with hosted() as host, raw_client(host.address, limit=1024) as client:
        await client.handshake()
        connection = await host.connection()
        while connection.socket.writable:
            connection.socket.send(b"x" * 50_000)
            connection.socket.flush()
            await asyncio.sleep(0)
        [live] = host.server.server_state.connections
        before = live._transport.get_write_buffer_size()
        for _ in range(100):
            client.send(frame(Opcode.PING, b"x" * 125))
        client.send(frame(Opcode.TEXT, b"done"))
        assert await connection.next() == ("text", "done")
        assert live._transport.get_write_buffer_size() <= before


def _use(connection: Recorder) -> None:
    connection.socket.send(b"more")
    connection.socket.ping()
    connection.socket.flush()
    connection.socket.close(1000)


async def _until_upgraded(host: Hosted) -> None:
    await eventually(lambda: host.server.server_state.tasks)


async def _until_empty(host: Hosted) -> None:
    await eventually(lambda: not host.server.server_state.connections)

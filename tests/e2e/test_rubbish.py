"""Whatever a client sends, it gets the right error or the right close code, and never a traceback in the log."""

import asyncio
import json
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import Opcode

from tests.e2e.conftest import Connect, StartServer
from tests.support import host as app
from tests.support.client import open_client, raw_client, raw_websocket, target
from tests.support.postgres import Database
from tests.support.server import Server

LIMIT = 64 << 10


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Rubbish is what is tested here; only the tests of the rate send many messages in a second."""
    return {"inbound_rate": 400}


RUBBISH = {
    "binary": (b"\x00\xff", "binary"),
    "empty binary": (b"", "binary"),
    "empty": ("", "malformed"),
    "not JSON": ("hello", "malformed"),
    "nearly a heartbeat": ("ping\n", "malformed"),
    "half of an object": ('{"type":"ping"', "malformed"),
    "two objects": ('{"type":"ping"}{"type":"ping"}', "malformed"),
    "a list": ('["ping"]', "malformed"),
    "a string": ('"ping"', "malformed"),
    "no type": ("{}", "malformed"),
    "a type that is no text": ('{"type":{"type":"ping"}}', "malformed"),
    "NUL": ("\x00", "malformed"),
    "very deep": ("[" * 20_000 + "]" * 20_000, "malformed"),
    "deep in an object": ('{"type":"ping","a":' + "[" * 20_000 + "]" * 20_000 + "}", "malformed"),
    "a number of 50,000 digits": ('{"type":"ping","n":' + "9" * 50_000 + "}", "malformed"),
    "unknown type": ('{"type":"subscribe"}', "unknown_type"),
    "a type of odd letters": ('{"type":"\\ud800"}', "unknown_type"),
    "ack unasked": ('{"type":"ack","seq":1}', "bad_ack"),
    "nack unasked": ('{"type":"nack","seq":1,"reason":"no"}', "bad_ack"),
    "ack without a number": ('{"type":"ack"}', "bad_ack"),
    "a token nobody wants": ('{"type":"auth","token":"secret"}', "unauthorized"),
    "one byte too many": ("x" * (LIMIT + 1), "too_large"),
    "a megabyte less a bit": (b"x" * (16 * LIMIT - 10), "too_large"),
}
HARMLESS = {
    "a number beyond floats": '{"type":"ping","n":1e999999}',
    "no number at all": '{"type":"ping","n":NaN}',
    "lone surrogates": '{"type":"ping","s":"\\ud83d \\udc00"}',
    "the same key twice": '{"type":"hello","type":"ping"}',
    "exactly the limit": '{"type":"ping","s":"' + "x" * (LIMIT - 22) + '"}',
}


@pytest.mark.parametrize(("message", "code"), RUBBISH.values(), ids=RUBBISH.keys())
async def test_rubbish_is_told_and_the_connection_goes_on(
    server: Server, host: asyncpg.Connection, connect: Connect, message: str | bytes, code: str
) -> None:
    """One error of three keys with a text for people, then events as before."""
    user = await app.add_user(host)
    client = await connect(server, user)

    await client.send(message)
    await client.ask()
    await app.log_mood(host, user)
    await client.got(1)

    assert [message["type"] for message in client.messages] == ["connected", "error", "pong", "mood_update"]
    error = client.messages[1]
    assert list(error) == ["type", "code", "message"]
    assert error["code"] == code
    assert len(error["message"]) > 10


@pytest.mark.parametrize("asked", [{"ack": "1"}, {"position": ""}, {}], ids=["acks", "positions", "nothing"])
async def test_connected_comes_first_however_early_a_client_talks(
    server: Server, asked: dict[str, str]
) -> None:
    """What was wrong is told behind it; who asked for more waits for the first read."""
    for _ in range(10):
        async with raw_client(server.address) as client:
            await client.handshake(target(user_id="ada", **asked))
            client.say("rubbish")
            assert [(await client.read_message())["type"] for _ in range(2)] == ["connected", "error"]


@pytest.mark.parametrize("message", HARMLESS.values(), ids=HARMLESS.keys())
async def test_what_is_odd_but_a_heartbeat_is_answered(
    server: Server, connect: Connect, message: str
) -> None:
    """Keys nobody asks for are not looked at."""
    client = await connect(server, "ada")

    await client.send(message)
    await client.until(lambda one: len(one.messages) == 2)

    assert client.messages[1]["type"] == "pong"


async def test_a_message_in_fragments_with_pings_between_them_is_one_message(server: Server) -> None:
    """Every ping is answered in between, an unasked pong is ignored."""
    async with raw_websocket(server.address, user_id="ada") as client:
        client.send(Opcode.TEXT, b"pi", fin=False)
        client.send(Opcode.PING, b"still there?")
        client.send(Opcode.PONG, b"nobody asked")
        assert await client.read_frame() == (Opcode.PONG, b"still there?")
        client.send(Opcode.CONT, b"", fin=False)
        client.send(Opcode.CONT, b"ng")

        assert (await client.read_message())["type"] == "pong"


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param([(Opcode.TEXT, b"\xff\xfe", True)], 1007, id="not UTF-8"),
        pytest.param([(Opcode.TEXT, b"\xed\xa0\x80", True)], 1007, id="a surrogate in UTF-8"),
        pytest.param(
            [(Opcode.TEXT, b"\xf0\x9f", False), (Opcode.CONT, b"\x98", True)], 1007, id="half a letter"
        ),
        pytest.param([(Opcode.CONT, b"ping", True)], 1002, id="a continuation of nothing"),
        pytest.param(
            [(Opcode.TEXT, b"p", False), (Opcode.TEXT, b"ping", True)], 1002, id="a start in between"
        ),
        pytest.param([(Opcode.TEXT, b"x" * (16 * LIMIT + 1), True)], 1009, id="sixteen times the limit"),
    ],
)
async def test_who_breaks_the_protocol_is_closed_with_its_code(
    server: Server, frames: list[tuple[Opcode, bytes, bool]], code: int
) -> None:
    """As RFC 6455 has it."""
    async with raw_websocket(server.address, user_id="ada") as client:
        for opcode, data, fin in frames:
            client.send(opcode, data, fin=fin)
        assert (await client.read_close())[0] == code
        assert await client.read_to_end() == b""


async def test_a_frame_without_a_mask_is_a_violation(server: Server) -> None:
    """Clients mask."""
    async with raw_websocket(server.address, user_id="ada") as client:
        client.send_bytes(b"\x81\x04ping")
        assert (await client.read_close())[0] == 1002


async def test_a_client_that_closes_gets_its_code_back(server: Server) -> None:
    """With whatever code of its own, and the connection ends."""
    async with raw_websocket(server.address, user_id="ada") as client:
        client.send(Opcode.CLOSE, (4321).to_bytes(2) + b"bye")
        assert await client.read_close() == (4321, "bye")
        assert await client.read_to_end() == b""


async def test_the_twenty_first_bad_message_within_a_minute_closes(server: Server, connect: Connect) -> None:
    """Twenty are told; after the next the connection is closed with 4400."""
    client = await connect(server, "ada")

    for _ in range(20):
        await client.send("rubbish")
    await client.ask()
    await client.send("rubbish")

    assert await client.ended() == 4400
    assert [message["type"] for message in client.messages] == ["connected", *["error"] * 20, "pong", "error"]


async def test_more_than_the_rate_is_told_and_not_done(
    house: Database, start_server: StartServer, connect: Connect
) -> None:
    """Twenty heartbeats within a second are answered, the rest are errors, and too many of those close."""
    server = start_server(house.url)
    await server.ready()
    client = await connect(server, "ada")

    for _ in range(100):
        await client.send("ping")

    assert await client.ended() == 4400
    kinds = [message["type"] for message in client.messages[1:]]
    assert 20 <= kinds.count("pong") <= 60  # a second may begin in between, on a slow machine two
    assert {message["code"] for message in client.messages if message["type"] == "error"} == {"rate_limited"}
    assert kinds.count("error") == 21


NOBODY = [
    "",
    "?",
    "?user_id=",
    "?user=ada",
    f"?user_id={'x' * 256}",
    "?user_id=a%00b",
    "?%zz=%",
    "?" + "a&" * 60,
]


@pytest.mark.parametrize("query", NOBODY)
async def test_who_names_no_user_is_told_and_closed(server: Server, query: str) -> None:
    """Accepted, told in one error, closed with 4400: a browser sees nothing of a refusal before the accept."""
    async with raw_client(server.address) as client:
        head = await client.handshake(f"/realtime/ws{query}")
        assert head.startswith(b"HTTP/1.1 101")
        error = await client.read_message()
        assert (await client.read_close())[0] == 4400

    assert list(error) == ["type", "code", "message"]
    assert error["code"] == "malformed"


async def test_the_longest_user_id_is_taken(server: Server, connect: Connect) -> None:
    """255 characters, of four bytes each."""
    client = await connect(server, "😀" * 255)
    assert client.messages[0]["user_id"] == "😀" * 255


async def test_a_user_id_that_is_not_utf_8_is_taken_as_well_as_can_be(server: Server) -> None:
    """No error of ours: it is somebody nobody knows."""
    async with raw_client(server.address) as client:
        await client.handshake("/realtime/ws?user_id=%ff%fe%ed%a0%80")
        assert (await client.read_message())["type"] == "connected"


@pytest.mark.parametrize("token", ["unheard of", "x" * 256, "x" * 5000, "a\x00b", "\ufffd😀"])
async def test_an_unknown_device_is_told_and_closed(
    server: Server, host: asyncpg.Connection, token: str
) -> None:
    """Whatever was sent as a token, and not to be tried again."""
    user = await app.add_user(host)
    async with raw_client(server.address) as client:
        await client.handshake(target(user_id=user, device_token=token))
        error = await client.read_message()
        assert await client.read_close() == (4400, "unknown_device")

    assert error["code"] == "unknown_device"
    assert "/realtime/devices" in error["message"]
    assert quote(token) not in server.log
    assert token not in server.log


async def test_a_device_of_another_user_is_an_unknown_device(
    server: Server, host: asyncpg.Connection
) -> None:
    """Also by the header; what belongs to whom is not told."""
    owner, other = await app.add_user(host), await app.add_user(host)
    token = f"phone of {owner}"
    device = {"user_id": owner, "device_token": token, "platform": "android"}
    assert (await server.request("POST", "/realtime/devices", json=device)).status_code == 201

    client = await open_client(server.address, {"X-Device-Token": token}, user_id=other)

    assert await client.ended() == 4400
    assert [message.get("code") for message in client.messages] == ["unknown_device"]


async def test_the_twenty_first_connection_of_a_user_is_refused(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """Also when all come at once, each with a device; the others stay, and one that leaves makes room."""
    user = await app.add_user(host)
    tokens = [f"device {number} of {user}" for number in range(30)]
    for token in tokens:
        device = {"user_id": user, "device_token": token, "platform": "web"}
        assert (await server.request("POST", "/realtime/devices", json=device)).status_code == 201

    clients = await asyncio.gather(*(connect(server, user, device_token=token) for token in tokens))
    refused = [client for client in clients if client.messages[0]["type"] == "error"]

    assert len(refused) == 10
    for client in refused:
        assert await client.ended() == 4429
        assert client.messages[0]["code"] == "too_many_connections"
    stayed = [client for client in clients if client not in refused]
    await stayed[0].close()
    again = await connect(server, user)
    await app.log_mood(host, user)
    for client in (*stayed[1:], again):
        await client.got(1)


async def test_a_full_process_refuses_before_the_accept(
    house: Database, start_server: StartServer, connect: Connect
) -> None:
    """With 503 and when to try again; it is not ready and says why; one that leaves makes room."""
    server = start_server(house.url, connections_per_process=2)
    await server.ready()
    first, _ = await asyncio.gather(connect(server, "ada"), connect(server, "ben"))

    with pytest.raises(InvalidStatus) as refused:
        await open_client(server.address, user_id="cy")

    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["Retry-After"]) > 0
    assert len(refused.value.response.body or b"") > 10
    ready = await server.get("/realtime/ready")
    assert ready.status_code == 503
    assert "no more connections" in ready.json()["reasons"][0]
    await first.close()
    await server.ready()
    await connect(server, "cy")


@pytest.mark.parametrize(
    "path", ["/", "/realtime/ws/", "/realtime/wss", "/realtime/events", "/realtime/health"]
)
async def test_another_path_is_not_found(server: Server, path: str) -> None:
    """An HTTP answer before the accept, naming the right one."""
    async with raw_client(server.address) as client:
        head = await client.handshake(f"{path}?user_id=ada")
        assert head.startswith(b"HTTP/1.1 404"), head


async def test_plain_http_on_the_websocket_is_an_error_of_the_client(server: Server) -> None:
    """Not ours."""
    answer = await server.get("/realtime/ws", user_id="ada")
    assert 400 <= answer.status_code < 500


async def test_rubbish_is_counted_for_each_connection_by_itself(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """A rude neighbour of the same user costs the others nothing."""
    user = await app.add_user(host)
    rude, polite = await connect(server, user), await connect(server, user)

    for _ in range(21):
        await rude.send(json.dumps({"type": "no"}))
    assert await rude.ended() == 4400
    await polite.send("once")
    await app.log_mood(host, user)

    await polite.got(1)
    assert sorted(message["type"] for message in polite.messages) == ["connected", "error", "mood_update"]

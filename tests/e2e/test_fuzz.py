"""Five thousand messages that nobody thought of, over real sockets: each end has its stated code, and the service goes on."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.conftest import Connect, Eventually
from tests.e2e.test_devices import register
from tests.support import host as app
from tests.support.client import open_client, raw_client, target
from tests.support.fuzz.jwts import Jwts
from tests.support.fuzz.requests import Requests
from tests.support.fuzz.words import SECRET_PART, Words
from tests.support.issuer import SECRET
from tests.support.server import PATIENCE, Server
from tests.support.stream import PATH as STREAM

TALKERS, SAID = 10, 300
STREAMS, HANDSHAKES, BODIES, TOKENS = 800, 200, 1000, 300
AT_ONCE = 10


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Rubbish is what is tested here, and not how much of it there may be."""
    return {
        "inbound_rate": 400,
        "requests_per_user": 1_000_000,
        "nack_pause": 0.2,
        "connections_per_user": 1000,
    }


async def at_once(count: int, do: Callable[[int], Awaitable[None]]) -> None:
    """Do something so many times, some of them at a time."""
    numbers: Iterator[int] = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await do(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


async def serves(server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually) -> None:
    """Events still come, receipts are written, and health has nothing to say."""
    user = await app.add_user(host)
    client = await connect(server, user)
    await app.log_mood(host, user)
    await client.got(1)

    async def written() -> bool:
        health = await server.health()
        return health["receipts"]["unwritten"] == 0 and health["status"] == "healthy"

    await eventually(written)


async def test_whatever_is_said_on_a_websocket(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """It is answered, or ends the connection with a code of the document's; nobody else notices."""
    ends: Counter[int] = Counter()
    told: Counter[str] = Counter()
    users = [await app.add_user(host) for _ in range(TALKERS)]
    await app.log_moods(host, users, 3)

    async def talk(user: str, words: Words) -> None:
        texts = (words.message() for _ in range(SAID))
        while (text := next(texts, None)) is not None:
            client = await open_client(server.address, user_id=user, ack="1")
            try:
                await client.until(lambda one: one.messages or one.close_code)
                for one in itertools.chain([text], itertools.islice(texts, 30)):
                    await client._connection.send(one.encode(errors="surrogatepass"), text=True)
                await client.ask()
                await client.close()
            except (ConnectionClosed, AssertionError):  # told so by `ask`: it ended
                ends[await client.ended()] += 1
            told.update(message.get("code", "") for message in client.messages)
            assert not any(SECRET_PART in str(message) for message in client.messages)

    async with asyncio.TaskGroup() as group:
        for seed, user in enumerate(users):
            group.create_task(talk(user, Words(100 + seed)))

    assert ends.keys() == {4400, 1007}, ends
    assert told.keys() - {"", "too_large"} == {"malformed", "unknown_type", "bad_ack", "unauthorized"}
    await serves(server, host, connect, eventually)


async def test_whatever_is_asked_of_a_stream(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """By a status of the document's, in JSON where it is an error."""
    statuses: Counter[int] = Counter()

    async def ask(number: int) -> None:
        requests = Requests(number)
        async with raw_client(server.address) as client:
            head = f"GET {STREAM}?{requests.query()} HTTP/1.1\r\nHost: x\r\n{requests.header()}\r\n\r\n"
            client.send_bytes(head.encode(errors="surrogatepass"))
            answer = await asyncio.wait_for(client._reader.readuntil(b"\r\n\r\n"), PATIENCE)
            status = int(answer.split()[1])
            statuses[status] += 1
            assert status in {200, 204, 400, 414} or (status == 403 and "Origin" in head), head
            if status in {400, 403, 414}:
                size = int(answer.lower().partition(b"content-length:")[2].split()[0])
                assert json.loads(await client._reader.readexactly(size))["type"] == "error"

    await at_once(STREAMS, ask)

    assert statuses.keys() >= {200, 204, 400, 414}
    await serves(server, host, connect, eventually)


async def test_whatever_is_asked_of_a_handshake(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """Refused with a status, told why and closed with a code, or let in."""
    ends: Counter[int] = Counter()

    by_header = {(403, "Origin"), (400, "Sec-WebSocket-Protocol")}

    async def shake(number: int) -> None:
        requests = Requests(10_000 + number)
        async with raw_client(server.address) as client:
            query, header = requests.query(), requests.header()
            status = int((await client.handshake(f"{target()}?{query}", header)).split()[1])
            if status != 101:
                assert status in {414, 431} or (status, header.partition(":")[0]) in by_header, (
                    status,
                    header,
                    query,
                )
                ends[status] += 1
                return
            first = await client.read_message()
            if first["type"] == "error":
                code, _ = await client.read_close()
                assert code == 4400, (status, header, query)
                ends[code] += 1
            else:
                assert first["type"] == "connected"
                ends[101] += 1

    await at_once(HANDSHAKES, shake)

    assert ends.keys() >= {101, 431, 4400}
    await serves(server, host, connect, eventually)


async def test_whatever_is_uploaded(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """A result for each action, or an error of the one shape; no row of another user is touched."""
    user, bystander = await app.add_user(host), await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    await app.log_moods(host, [bystander], 99)
    statuses: Counter[int] = Counter()
    results: Counter[str] = Counter()

    async with server.http() as client:

        async def upload(number: int) -> None:
            requests = Requests(20_000 + number)
            if number % 4:
                path, body = "/realtime/sync", requests.upload(user, f"phone {user}")
            else:
                path, body = "/realtime/sync/ack", requests.ack(user)
            answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                results.update(one["status"] for one in answer.json().get("results", ()))
            else:
                assert (answer.status_code, answer.json()["type"]) in {
                    (status, "error") for status in (400, 404, 409, 422)
                }, body

        await at_once(BODIES, upload)

    assert statuses.keys() >= {200, 400, 404, 422}
    assert min(results[status] for status in ("accepted", "duplicate", "invalid")) > 50, results
    rows = "SELECT count(*) FROM sync_queue WHERE user_id = $1"
    assert await host.fetchval(rows, user) == results["accepted"]
    delivered = "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND delivered"
    assert await host.fetchval(delivered, bystander) == 0
    await serves(server, host, connect, eventually)


async def test_whatever_is_shown_for_a_token(start_server: Any, house: Any) -> None:
    """Over HTTP: the user's devices, or 401, or 400 where it is nothing of the kind."""
    server = start_server(house.url, jwt_secret=SECRET, requests_per_user=1_000_000)
    await server.healthy()
    statuses: Counter[int] = Counter()
    jwts = Jwts(7, "HS256")
    tokens = [jwts.token() for _ in range(TOKENS)]

    async with server.http() as client:

        async def show(number: int) -> None:
            shown = "".join(letter for letter in tokens[number] if letter.isprintable() and letter.isascii())
            way = ("/realtime/devices", "/realtime/tickets", "/realtime/tickets?as=cookie")[number % 3]
            method = "POST" if "tickets" in way else "GET"
            answer = await client.request(method, way, headers={"Authorization": f"Bearer {shown}".strip()})
            statuses[answer.status_code] += 1
            assert answer.status_code in {200, 201, 400, 401}, shown
            assert len(shown) < 20 or shown not in answer.text

        await at_once(TOKENS, show)

    assert statuses.keys() >= {200, 201, 401}

"""Where a client comes from: pages of other origins, many attempts of one address, and what proxies say of it."""

import json
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.conftest import Connect, Listen, StartServer
from tests.support import stream
from tests.support.client import open_client, raw_client, target
from tests.support.issuer import SECRET, token
from tests.support.postgres import Database
from tests.support.server import Server

APP = "https://app.example"
PUBLIC, ANOTHER = "8.8.4.4", "2a00:1450:4001:82a::1"
NEIGHBOUR = "2a00:1450:4001:82a:1::2"  # of the same /64
ATTEMPTS = 5


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    return {"allowed_origins": APP, "attempts_per_address": ATTEMPTS, "url_size": 1000}


def origin(name: str) -> dict[str, str]:
    return {"Origin": name}


def forwarded(address: str, **more: str) -> dict[str, str]:
    return {"X-Forwarded-For": address, **more}


async def refused(server: Server, headers: dict[str, str] | None = None, **query: str) -> Any:
    """The answer to a handshake that is refused before the accept."""
    with pytest.raises(InvalidStatus) as refusal:
        await open_client(server.address, headers, **query)
    return refusal.value.response


# ---- pages


async def test_a_page_of_another_origin_may_not_connect(server: Server) -> None:
    """403 before the accept, with a word for people."""
    answer = await refused(server, origin("https://evil.example"), user_id="ada")
    stream = await server.request(
        "GET", "/realtime/events", params={"user_id": "ada"}, headers=origin("https://evil.example")
    )

    assert (answer.status_code, json.loads(answer.body)["code"]) == (403, "origin")
    assert stream.status_code == 403
    assert stream.json()["code"] == "origin"
    assert "access-control-allow-origin" not in stream.headers


@pytest.mark.parametrize("page", [APP, None, "self"])
async def test_listed_pages_apps_and_our_own_pages_may(
    server: Server, listen: Listen, page: str | None
) -> None:
    """The list is for pages; whoever names no origin is none."""
    headers = None if page is None else origin("http://localhost" if page == "self" else page)

    async with raw_client(server.address) as client:
        head = await client.handshake(
            target(user_id="ada"), *(f"{k}: {v}" for k, v in (headers or {}).items())
        )
    stream = await listen(server, "ada", headers)

    assert head.startswith(b"HTTP/1.1 101")
    assert (stream.status, stream.messages[0]["type"]) == (200, "connected")


async def test_listed_pages_may_read_answers_and_others_may_not(server: Server) -> None:
    """CORS goes by the same list, credentials included, for streams and endpoints alike."""
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for path in ("/realtime/devices", "/realtime/events"):
        ours = await server.request("OPTIONS", path, headers={**origin(APP), **asked})
        others = await server.request("OPTIONS", path, headers={**origin("https://evil.example"), **asked})

        assert ours.status_code == 200
        assert ours.headers["access-control-allow-origin"] == APP
        assert ours.headers["access-control-allow-credentials"] == "true"
        assert ours.headers["access-control-allow-headers"] == "authorization"
        assert "access-control-allow-origin" not in others.headers
    health = await server.request("GET", "/realtime/health", headers=origin(APP))
    foreign = await server.request("GET", "/realtime/health", headers=origin("https://evil.example"))
    assert health.headers["access-control-allow-origin"] == APP
    assert "access-control-allow-origin" not in foreign.headers
    assert health.json()["clients"]["origins"] == [APP]


async def test_without_a_list_every_page_may_while_nobody_has_to_say_who_they_are(
    house: Database, start_server: StartServer, connect: Connect
) -> None:
    """As the predecessor did; and no cookie goes with it."""
    server = start_server(house.url)
    await server.ready()

    client = await connect(server, "ada", origin("https://evil.example"))
    health = await server.request("GET", "/realtime/health", headers=origin("https://evil.example"))

    assert client.messages[0]["type"] == "connected"
    assert health.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in health.headers


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("allowed_origins", "app.example"),
        ("allowed_origins", "*,https://a"),
        ("forwarded_allow_ips", "proxy"),
    ],
)
async def test_a_list_that_is_none_is_told_at_the_start(house: Database, setting: str, value: str) -> None:
    """One line, and no service that lets in others than was meant."""
    server = Server(house.url, **{setting: value})
    status, log = await server.ended(), server.log
    server.end()

    assert status != 0
    assert setting.upper() in log
    assert "Traceback" not in log


# ---- attempts


async def test_one_address_may_try_so_often(server: Server, connect: Connect) -> None:
    """Then 429 with Retry-After before the accept; others and the machine itself go on."""
    for _ in range(ATTEMPTS):
        await connect(server, "ada", forwarded(PUBLIC))
    answer = await refused(server, forwarded(PUBLIC), user_id="ada")
    stream = await server.request(
        "GET", "/realtime/events", params={"user_id": "ada"}, headers=forwarded(PUBLIC)
    )
    browser = await server.request(
        "GET",
        "/realtime/events",
        params={"user_id": "ada"},
        headers=forwarded(PUBLIC, Accept="text/event-stream"),
    )
    other = await connect(server, "ada", forwarded("8.8.8.8"))
    local = [await connect(server, "ada") for _ in range(ATTEMPTS + 1)]

    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60 / ATTEMPTS
    assert (stream.status_code, stream.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(stream.headers["retry-after"]) <= 60 / ATTEMPTS
    assert browser.status_code == 200, "at another status an EventSource stops for good"
    assert browser.text.startswith("retry: ")
    assert '"code":"rate_limited"' in browser.text
    assert [one.messages[0]["type"] for one in (other, *local)] == ["connected"] * (ATTEMPTS + 2)


async def test_a_customer_of_ipv6_is_one_address(server: Server) -> None:
    """Whoever has a /64 has all of it; attempts that end in an error count as well."""
    for number in range(ATTEMPTS):
        client = await open_client(server.address, forwarded((ANOTHER, NEIGHBOUR)[number % 2]))
        assert await client.ended() == 4400
    answers = [await refused(server, forwarded(address)) for address in (ANOTHER, NEIGHBOUR)]

    assert [answer.status_code for answer in answers] == [429, 429]


async def test_a_client_cannot_choose_its_address_by_naming_others_before_it(server: Server) -> None:
    """A proxy adds what it sees at the end; what stands before it is the client's own word."""
    for number in range(ATTEMPTS):
        client = await open_client(server.address, forwarded(f"9.9.9.{number}, 1.0.0.1"))
        assert await client.ended() == 4400

    assert (await refused(server, forwarded("9.9.9.99, 1.0.0.1"))).status_code == 429


# ---- proxies


async def test_the_word_of_a_stranger_about_the_address_is_not_taken(
    house: Database, start_server: StartServer, connect: Connect
) -> None:
    """One warning however often, a count in health, and no limit that the client could escape by it."""
    server = start_server(house.url, forwarded_allow_ips="10.9.8.7,fd00::/8", attempts_per_address=1)
    await server.ready()
    before = (await server.health())["clients"]

    for number in range(3):
        await connect(server, "ada", forwarded(f"8.8.8.{number % 2}"))
    await server.request("GET", "/realtime/ready", headers={"Forwarded": "for=8.8.8.8"})
    await server.request("GET", "/realtime/ready", headers={"X-Real-IP": "8.8.8.8"})
    clients = (await server.health())["clients"]

    assert before["trusted_proxies"] == "10.9.8.7,fd00::/8"
    assert before["ignored_forwarding_headers"] == 0
    assert clients["ignored_forwarding_headers"] == 5
    assert server.log.count("ignoring the forwarding headers of 127.0.0.1") == 1
    assert "8.8.8." not in server.log


async def test_the_word_of_a_proxy_that_is_trusted_is_no_matter_for_a_warning(server: Server) -> None:
    """By default the machine itself, where a proxy often runs."""
    await server.request("GET", "/realtime/ready", headers=forwarded(PUBLIC))
    clients = (await server.health())["clients"]

    assert clients["trusted_proxies"] == "127.0.0.1,::1"
    assert clients["ignored_forwarding_headers"] == 0


async def test_a_server_that_takes_no_proxy_s_word_says_so(
    house: Database, start_server: StartServer
) -> None:
    """`--no-proxy-headers` is an explicit wish."""
    server = start_server(house.url, "--no-proxy-headers")
    await server.ready()
    await server.request("GET", "/realtime/ready", headers=forwarded(PUBLIC))
    clients = (await server.health())["clients"]

    assert (clients["trusted_proxies"], clients["ignored_forwarding_headers"]) == (None, 1)


async def test_behind_a_proxy_that_takes_a_part_of_the_path_off_everything_is_where_it_was(
    house: Database, start_server: StartServer
) -> None:
    """The part is told by --root-path, and uvicorn puts it before every path."""
    server = start_server(house.url, "--root-path", "/mindvibe")
    await server.healthy()

    client = await open_client(server.address, user_id="ada")
    await client.until(lambda one: one.messages)
    events = await stream.request(server.address, f"{stream.PATH}?user_id=ada")
    await events.until(lambda one: one.messages)

    assert client.messages[0]["type"] == events.messages[0]["type"] == "connected"
    assert (await server.get("/realtime/devices", user_id="ada")).status_code == 200
    await client.vanish()
    await events.vanish()


# ---- how long an address may be


@pytest.mark.parametrize("size", [1001, 8_150, 30_000])
async def test_a_url_that_is_too_long_is_told_so(server: Server, size: int) -> None:
    """Just so, as long as the WebSocket library takes, and longer than that."""
    path = target(user_id="ada", position="")
    async with raw_client(server.address) as client:
        head = await client.handshake(path + "x" * (size - len(path)))
    stream = await server.get("/realtime/events", user_id="x" * size)

    assert head.split(b"\r\n", 1)[0].startswith(b"HTTP/1.1 414" if size < 8192 else b"HTTP/1.1 4")
    assert (stream.status_code, stream.json()["code"]) == (414, "too_large")


async def test_a_url_as_long_as_is_allowed_is_fine(server: Server, connect: Connect) -> None:
    """To the byte."""
    room = 1000 - len(target(user_id="ada", position=""))
    client = await connect(server, "ada", position="x" * room)

    assert client.messages[0]["reason"] == "malformed", "a position that is none"
    assert httpx2.codes.is_success((await server.get("/realtime/ready")).status_code)


# ---- once everybody is asked for a token


async def test_with_tokens_only_our_own_pages_may_unless_others_are_listed(
    house: Database, start_server: StartServer
) -> None:
    """A good token does not help a foreign page; CORS is for nobody, and `*` keeps the service from starting."""
    server = start_server(house.url, jwt_secret=SECRET)
    await server.ready()
    good = {"Authorization": f"Bearer {token('ada')}"}
    own = origin(f"http://127.0.0.1:{server.port}")

    answer = await refused(server, {**good, **origin("https://evil.example")})
    stream = await server.request(
        "GET", "/realtime/events", headers={**good, **origin("https://evil.example")}
    )
    clients = [await open_client(server.address, {**good, **page}) for page in (own, {})]
    for client in clients:
        await client.until(lambda one: one.messages)
    health = await server.request("GET", "/realtime/health", headers=origin("https://evil.example"))
    anyone = Server(house.url, jwt_secret=SECRET, allowed_origins="*")
    status, log = await anyone.ended(), anyone.log
    anyone.end()

    assert (answer.status_code, stream.status_code) == (403, 403)
    assert [client.messages[0]["type"] for client in clients] == ["connected", "connected"]
    assert "access-control-allow-origin" not in health.headers
    assert health.json()["clients"]["origins"] == []
    assert status != 0
    assert "ALLOWED_ORIGINS" in log
    for client in clients:
        await client.close()

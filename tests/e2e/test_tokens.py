"""Nobody is anybody without a token, on any transport; with one, only its user.

One service with a shared secret, an issuer and an audience; another with a public key file.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import httpx2
import pytest

from tests.e2e.conftest import Connect, Listen, StartServer
from tests.support import host as app
from tests.support import issuer, stream
from tests.support.client import Client, open_client
from tests.support.issuer import AUDIENCE, ISSUER, SECRET
from tests.support.postgres import Database
from tests.support.server import Server

SERVICE_TOKEN = "the token of the host and of its operators"
MINE = {"iss": ISSUER, "aud": AUDIENCE}


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Tokens of a shared secret, for this service only."""
    return {
        "jwt_secret": SECRET,
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "jwt_leeway": 0,
        "service_token": SERVICE_TOKEN.replace(" ", "-"),
    }


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def good(user: str, **other: Any) -> str:
    """A token as the server of this module wants it."""
    return issuer.token(user, **{**MINE, **other})


# ---- how each transport lets somebody in


async def by_header(server: Server, token: str, **query: str) -> tuple[str, int, str]:
    """Connect by the WebSocket; return what came first, the close code and what was told."""
    return await outcome(await open_client(server.address, bearer(token), **query))


async def by_subprotocol(server: Server, token: str, **query: str) -> tuple[str, int, str]:
    offered = ["mindvibe.v1", f"bearer.{token}"]
    return await outcome(await open_client(server.address, subprotocols=offered, **query))


async def outcome(client: Client) -> tuple[str, int, str]:
    await client.until(lambda one: one.messages)
    first = client.messages[0]
    if first["type"] == "connected":
        await client.vanish()
        return "connected", 0, ""
    await client.until(lambda one: one.close_code is not None)
    assert client.close_code is not None
    return first["code"], client.close_code, first["message"]


async def by_stream(server: Server, token: str, **query: str) -> tuple[str, int, str]:
    one = await stream.request(server.address, f"{stream.PATH}?{urlencode(query)}", headers=bearer(token))
    await one.until(lambda this: this.messages or this.ended)
    if one.status == 200:
        await one.vanish()
        return one.messages[0]["type"], 0, ""
    told = httpx2.Response(one.status, content=one.body).json()
    if one.status == 401:
        assert one.headers["www-authenticate"].startswith("Bearer")
    return told["code"], 4000 + one.status, told["message"]


async def by_http(server: Server, token: str, **query: str) -> tuple[str, int, str]:
    """The same over HTTP, as if it were a connection."""
    answer = await server.request("GET", "/realtime/devices", params=query, headers=bearer(token))
    if answer.status_code == 200:
        return "connected", 0, ""
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    told = answer.json()
    return told["code"], 4000 + answer.status_code, told["message"]


Way = Callable[..., Awaitable[tuple[str, int, str]]]
WAYS: dict[str, Way] = {
    "header": by_header,
    "subprotocol": by_subprotocol,
    "stream": by_stream,
    "http": by_http,
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    """Every way in which a token is given."""
    return WAYS[request.param]


# ---- tokens good and bad


async def test_a_good_token_says_who_connects(server: Server, host: asyncpg.Connection, way: Way) -> None:
    """With the user's id beside it or without."""
    user = await app.add_user(host)

    assert await way(server, good(user)) == ("connected", 0, "")
    assert await way(server, good(user), user_id=user) == ("connected", 0, "")


BAD: dict[str, Callable[[str], str]] = {
    "expired": lambda user: good(user, exp=int(time.time()) - 5),
    "no exp": lambda user: good(user, exp=None),
    "not valid yet": lambda user: good(user, nbf=int(time.time()) + 600),
    "issued tomorrow": lambda user: good(user, iat=int(time.time()) + 86400),
    "wrong audience": lambda user: good(user, aud="elsewhere"),
    "no audience": lambda user: good(user, aud=None),
    "wrong issuer": lambda user: good(user, iss="https://elsewhere.example"),
    "no user": lambda user: good(user, sub=None),
    "another secret": lambda user: good(user, key=issuer.OTHER_SECRET),
    "no algorithm": lambda user: issuer.by_hand({"alg": "none"}, issuer.claims(user, **MINE)),
    "another algorithm": lambda user: issuer.signed("RS256", user, **MINE),
    "hostile kid": lambda user: good(user, key=issuer.OTHER_SECRET, headers={"kid": "../../dev/null"}),
    "the secret's name": lambda user: "undefined",
    "the service's": lambda user: SERVICE_TOKEN.replace(" ", "-"),
    "nonsense": lambda user: "a.b.c",
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
async def test_a_bad_token_is_told_what_is_wrong(
    server: Server, host: asyncpg.Connection, way: Way, make: Callable[[str], str]
) -> None:
    """4401, or 401, and a text that does not repeat the token."""
    user = await app.add_user(host)
    token = make(user)

    code, closed, message = await way(server, token, user_id=user)

    assert (code, closed) == ("unauthorized", 4401)
    assert len(message) > 10
    assert token not in message
    assert token not in server.log


async def test_another_user_is_refused(server: Server, host: asyncpg.Connection, way: Way) -> None:
    """4403: a new token would not help."""
    user, other = await app.add_user(host), await app.add_user(host)

    code, closed, message = await way(server, good(user), user_id=other)

    assert (code, closed) == ("not_allowed", 4403)
    assert other not in message


async def test_nothing_at_all_is_refused(
    server: Server, host: asyncpg.Connection, connect: Connect, listen: Listen
) -> None:
    """By every transport, with what to do."""
    user = await app.add_user(host)

    client = await connect(server, user)
    await client.until(lambda one: one.close_code is not None)
    assert client.close_code == 4401
    assert "bearer" in client.messages[0]["message"]
    one = await listen(server, user)
    assert one.status == 401
    for method, path in (
        ("GET", "/realtime/devices"),
        ("GET", "/realtime/sync"),
        ("POST", "/realtime/tickets"),
    ):
        answer = await server.request(method, path, params={"user_id": user})
        assert answer.status_code == 401, path


async def test_no_endpoint_answers_without_a_token(server: Server) -> None:
    """But those that say how the service is; a new one that forgets to ask fails here."""
    document = (await server.get("/openapi.json")).json()
    open_to_all = {"/realtime/health", "/realtime/ready"}

    for path, methods in document["paths"].items():
        for method in methods:
            body = BODIES.get((method, path))
            answer = await server.request(
                method.upper(),
                path.replace("{", "").replace("}", "").replace("device_id", "1").replace("id", "1"),
                json=body,
            )
            if path in open_to_all:
                assert answer.status_code in {200, 503}
            else:
                assert answer.status_code == 401, (method, path, answer.text)


BODIES: dict[tuple[str, str], Any] = {
    ("post", "/realtime/devices"): {"device_token": "t", "platform": "ios"},
    ("post", "/realtime/sync"): {"device_token": "t", "actions": []},
    ("post", "/realtime/sync/ack"): {"ids": []},
}


@pytest.mark.parametrize("name", ["token", "access_token", "ticket", "user_id", "jwt", "x"])
async def test_a_token_in_the_url_is_refused_whatever_it_is_called(
    server: Server, host: asyncpg.Connection, connect: Connect, listen: Listen, name: str
) -> None:
    """It is in some log by now; the client is told how else to send one."""
    user = await app.add_user(host)
    token = good(user)

    client = await open_client(server.address, bearer(token), **{name: token})
    await client.until(lambda one: one.close_code is not None)
    assert (client.close_code, client.messages[0]["code"]) == (4400, "token_in_url")
    assert "Authorization" in client.messages[0]["message"]
    one = await stream.request(server.address, f"{stream.PATH}?{name}={token}")
    await one.finished()
    assert one.status == 400
    answer = await server.get("/realtime/devices", **{name: token})
    assert (answer.status_code, answer.json()["code"]) == (400, "token_in_url")
    assert token not in server.log


async def test_a_token_in_the_url_is_not_hidden_by_others(server: Server, host: asyncpg.Connection) -> None:
    """What has more parameters than are looked at is refused, though it comes with a good token."""
    token = good(await app.add_user(host))
    many = {**{f"x{number}": "" for number in range(60)}, "token": token}

    client = await open_client(server.address, bearer(token), **many)
    assert await client.ended() == 4400
    answer = await server.request("GET", "/realtime/devices", params=many, headers=bearer(token))

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


async def test_one_token_at_a_time(server: Server, host: asyncpg.Connection) -> None:
    """Of two nobody can say which one a proxy in front had looked at."""
    user = await app.add_user(host)
    token = good(user)

    client = await open_client(server.address, bearer(token), subprotocols=["mindvibe.v1", f"bearer.{token}"])

    await client.until(lambda one: one.close_code is not None)
    assert client.close_code == 4400


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer", "bearer", "Token x"])
async def test_another_scheme_is_told_so(server: Server, value: str) -> None:
    """400: the token is not even looked for."""
    answer = await server.request("GET", "/realtime/devices", headers={"Authorization": value})

    assert answer.status_code == 400


async def test_the_server_answers_its_own_subprotocol_only(server: Server, host: asyncpg.Connection) -> None:
    """The token must not come back; a browser insists that one of those it offered does."""
    user = await app.add_user(host)

    client = await open_client(server.address, subprotocols=[f"bearer.{good(user)}", "mindvibe.v1"])

    await client.until(lambda one: one.messages)
    assert client.subprotocol == "mindvibe.v1"
    await client.vanish()


# ---- devices


async def test_a_device_is_its_user_s_only(server: Server, host: asyncpg.Connection, way: Way) -> None:
    """Another user's is 4403 with a good token, and an unknown one 4400 as ever."""
    user, other = await app.add_user(host), await app.add_user(host)
    device = {"device_token": f"t {other}", "platform": "ios"}
    made = await server.request("POST", "/realtime/devices", json=device, headers=bearer(good(other)))
    assert (made.status_code, made.json()["user_id"]) == (201, other)

    if way is by_http:
        asked = {"params": {"device_token": f"t {other}"}, "headers": bearer(good(user))}
        answer = await server.request("GET", "/realtime/sync", **asked)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
        removed = await server.request(
            "DELETE", f"/realtime/devices/{made.json()['id']}", headers=bearer(good(user))
        )
        assert removed.status_code == 404
        return
    code, closed, _ = await way(server, good(user), device_token=f"t {other}")
    assert (code, closed) == ("not_allowed", 4403)
    code, closed, _ = await way(server, good(user), device_token="nobody's")
    assert (code, closed) == ("unknown_device", 4400)


async def test_endpoints_act_for_the_token_s_user(server: Server, host: asyncpg.Connection) -> None:
    """Whose id need not be said; another's is refused, in a query and in a body."""
    user, other = await app.add_user(host), await app.add_user(host)
    mine = bearer(good(user))
    phone = {"device_token": f"t {user}", "platform": "ios"}
    assert (await server.request("POST", "/realtime/devices", json=phone, headers=mine)).status_code == 201
    listed = await server.request("GET", "/realtime/devices", headers=mine)
    assert [one["user_id"] for one in listed.json()] == [user]
    await app.log_mood(host, user)
    got = await server.request("GET", "/realtime/sync", params={"wait": 5}, headers=mine)
    assert [one["type"] for one in got.json()["messages"]] == ["mood_update"]
    ack = {"device_token": f"t {user}", "position": got.json()["next"]}
    assert (await server.request("POST", "/realtime/sync/ack", json=ack, headers=mine)).json() == {
        "marked": 1
    }

    for body in ({"user_id": other, **phone},):
        answer = await server.request("POST", "/realtime/devices", json=body, headers=mine)
        assert answer.status_code == 403
    for path, body in (
        ("/realtime/sync/ack", {**ack, "user_id": other}),
        ("/realtime/sync", {"device_token": "t", "actions": [], "user_id": other}),
    ):
        assert (await server.request("POST", path, json=body, headers=mine)).status_code == 403


# ---- operators


async def test_operators_need_the_service_s_token(server: Server, host: asyncpg.Connection) -> None:
    """On this machine too, once anything is configured; a user's token is not it."""
    path = "/realtime/dead-letters"
    right = SERVICE_TOKEN.replace(" ", "-")

    assert (await server.request("GET", path, headers=bearer(right))).status_code == 200
    for token, status in ((right[:-1], 403), (right + "x", 403), (good("ada"), 403), ("ä", 403)):
        headers = [(b"Authorization", f"Bearer {token}".encode())]
        assert (await server.request("GET", path, headers=headers)).status_code == status
    answer = await server.get(path)
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["www-authenticate"]


# ---- other configurations


async def test_a_key_file_is_for_its_own_algorithm(
    house: Database, host: asyncpg.Connection, start_server: StartServer, tmp_path: Path
) -> None:
    """Good, and not by its public key as a secret; without a SERVICE_TOKEN nobody is an operator."""
    user = await app.add_user(host)
    path = tmp_path / "issuer.pem"
    path.write_bytes(issuer.public_pem("RS256"))
    server = start_server(house.url, jwt_public_key_file=path, environment="production")
    await server.ready()

    for way in WAYS.values():
        assert await way(server, issuer.signed("RS256", user)) == ("connected", 0, "")
        for forged in (
            issuer.hmac_with(path.read_bytes(), user),
            issuer.signed("RS256", user, name="another"),
            issuer.signed("ES256", user),
        ):
            assert (await way(server, forged))[1] == 4401
    answer = await server.get("/realtime/dead-letters")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
    health = await server.health()
    assert health["authentication"] == {"mode": "public_key", "algorithms": ["RS256"], "operators": "nobody"}


async def test_without_configuration_it_runs_open_and_says_so(
    house: Database, host: asyncpg.Connection, start_server: StartServer, connect: Connect
) -> None:
    """In the log at the start and in health; whoever is on the machine is an operator."""
    user = await app.add_user(host)
    server = start_server(house.url)
    await server.ready()

    assert (await connect(server, user)).messages[0]["user_id"] == user
    assert "NOBODY IS ASKED FOR A TOKEN" in server.log
    told = (await server.health())["authentication"]
    assert (told["mode"], told["operators"]) == ("open", "loopback")
    assert "JWT_SECRET" in told["warning"]
    assert (await server.get("/realtime/dead-letters")).status_code == 200
    answer = await server.request("POST", "/realtime/tickets")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_needed")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"environment": "production"}, "JWT_SECRET"),
        ({"jwt_secret": "short"}, "JWT_SECRET has 5 bytes"),
        ({"jwt_secret": ""}, "JWT_SECRET has 0 bytes"),
        ({"jwt_secret": SECRET, "jwt_jwks_url": "https://x.example"}, "JWT_SECRET and JWT_JWKS_URL"),
        ({"jwt_public_key_file": "/nowhere.pem"}, "JWT_PUBLIC_KEY_FILE /nowhere.pem cannot be read"),
        ({"jwt_jwks_url": "nowhere"}, "JWT_JWKS_URL is no address"),
        ({"jwt_jwks_url": "http://x.example", "environment": "production"}, "https in production"),
        ({"jwt_issuer": ISSUER}, "JWT_ISSUER is set, and no key"),
        ({"jwt_secret": SECRET, "service_token": "guess"}, "SERVICE_TOKEN has 5 characters"),
        ({"jwt_secret": SECRET, "allowed_origins": "*"}, "ALLOWED_ORIGINS"),
        (
            {"jwt_secret": SECRET, "environment": "production", "forwarded_allow_ips": "10.0.0.1,::/0"},
            "FORWARDED_ALLOW_IPS is 10.0.0.1,::/0",
        ),
    ],
    ids=str,
)
async def test_what_cannot_be_meant_ends_the_start(settings: dict[str, str], told: str) -> None:
    """With one line that says what to do, and nothing of a secret."""
    server = Server("postgresql://nobody@127.0.0.1:1/nothing", **settings)
    try:
        assert await server.ended() == 3
        said = server.log
    finally:
        server.end()

    assert told in said
    assert "Traceback" not in said
    assert SECRET not in said

"""How many requests a user may make."""

from typing import Any

import asyncpg
import pytest

from tests.e2e.conftest import Connect, StartServer
from tests.support import host as app
from tests.support.issuer import SECRET, token
from tests.support.postgres import Database
from tests.support.server import Server

REQUESTS = 4


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    return {"requests_per_user": REQUESTS}


def asked_for(user: str) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Every request that is on behalf of a user, though it need not come to anything."""
    who = {"user_id": user}
    phone = {"user_id": user, "device_token": f"t {user}"}
    return {
        "register": ("POST", "/realtime/devices", {"json": {**phone, "platform": "ios"}}),
        "list": ("GET", "/realtime/devices", {"params": who}),
        "remove": ("DELETE", "/realtime/devices/1", {"params": who}),
        "read": ("GET", "/realtime/sync", {"params": who}),
        "ack": ("POST", "/realtime/sync/ack", {"json": who}),
        "upload": ("POST", "/realtime/sync", {"json": {**phone, "actions": []}}),
    }


@pytest.mark.parametrize("what", list(asked_for("")))
async def test_a_user_may_ask_so_often(
    server: Server, host: asyncpg.Connection, connect: Connect, what: str
) -> None:
    """Then 429 with Retry-After, whatever is asked; others, and the user's connections, go on."""
    user, other = await app.add_user(host), await app.add_user(host)
    method, path, options = asked_for(user)[what]
    before = [(await server.request(method, path, **options)).status_code for _ in range(REQUESTS)]
    answer = await server.request(method, path, **options)
    method, path, options = asked_for(other)[what]
    others = await server.request(method, path, **options)
    client = await connect(server, user)

    assert 429 not in before
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 60 / REQUESTS
    assert others.status_code != 429
    assert client.messages[0]["type"] == "connected"


async def test_a_token_s_user_is_counted_whatever_the_request_names(
    house: Database, start_server: StartServer
) -> None:
    """With a token it is the token's user; a request on behalf of another one is refused, and counts too."""
    server = start_server(house.url, requests_per_user=REQUESTS, jwt_secret=SECRET)
    await server.ready()
    ada, bob = ({"Authorization": f"Bearer {token(user)}"} for user in ("ada", "bob"))
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/realtime/tickets", {}),
        ("GET", "/realtime/devices", {"params": {"user_id": "bob"}}),
        ("GET", "/realtime/devices", {}),
        ("GET", "/realtime/sync", {}),
        ("POST", "/realtime/tickets", {}),
    ]
    answers = [
        (await server.request(method, path, headers=ada, **options)).status_code
        for method, path, options in asked
    ]
    other = await server.request("GET", "/realtime/devices", headers=bob)
    nobody = await server.request("GET", "/realtime/devices")

    assert answers == [201, 403, 200, 200, 429]
    assert (other.status_code, nobody.status_code) == (200, 401)

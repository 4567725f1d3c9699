"""Every error has the same body, whatever refuses and on whatever way; and a token comes before all else."""

from typing import Any

import asyncpg
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e.protocol import KINDS
from tests.support import host as app
from tests.support import issuer
from tests.support.client import raw_client
from tests.support.issuer import SECRET
from tests.support.server import Server

BODY, URL = 10_000, 4000
SERVICE_TOKEN = "x" * 40


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    return {"jwt_secret": SECRET, "service_token": SERVICE_TOKEN, "body_size": BODY, "url_size": URL}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


GOOD = bearer(issuer.token("ada"))
OPERATOR = bearer(SERVICE_TOKEN)
JSON = {"Content-Type": "application/json"}
SYNC, DEVICES = "/realtime/sync", "/realtime/devices"
REFUSED: list[tuple[int, str, str, str, dict[str, Any]]] = [
    (400, "malformed", "POST", SYNC, {"headers": GOOD | JSON, "content": b"9" * 5000}),
    (400, "malformed", "POST", SYNC, {"headers": GOOD | JSON, "content": b'"\xff"'}),
    (400, "malformed", "GET", SYNC, {"headers": {"Authorization": "Basic x"}}),
    (400, "token_in_url", "GET", f"{SYNC}?x={issuer.token('ada')}", {"headers": GOOD}),
    (401, "unauthorized", "GET", SYNC, {}),
    (401, "unauthorized", "GET", SYNC, {"headers": bearer("x")}),
    (401, "unauthorized", "GET", "/realtime/dead-letters", {}),
    (401, "unauthorized", "GET", "/realtime/events", {}),
    (403, "not_allowed", "GET", f"{SYNC}?user_id=bob", {"headers": GOOD}),
    (403, "not_allowed", "GET", "/realtime/dead-letters", {"headers": GOOD}),
    (403, "origin", "GET", "/realtime/events", {"headers": {"Origin": "https://elsewhere.example"}}),
    (404, "not_found", "GET", "/elsewhere", {}),
    (404, "not_found", "GET", f"{SYNC}/?position=x", {"headers": GOOD}),
    (404, "no_such_user", "POST", DEVICES, {"headers": bearer(issuer.token("nobody")), "json": {"device_token": "t", "platform": "ios"}}),
    (404, "no_such_device", "DELETE", f"{DEVICES}/1", {"headers": GOOD}),
    (404, "no_such_letter", "POST", "/realtime/dead-letters/1/redrive", {"headers": OPERATOR}),
    (405, "method_not_allowed", "PUT", SYNC, {"headers": GOOD}),
    (405, "method_not_allowed", "POST", "/realtime/events", {}),
    (413, "too_large", "POST", SYNC, {"headers": GOOD | JSON, "content": b" " * (BODY + 1)}),
    (414, "too_large", "GET", f"{SYNC}?x={'x' * URL}", {"headers": GOOD}),
    (414, "too_large", "GET", f"/realtime/events?x={'x' * URL}", {}),
    (422, "malformed", "POST", SYNC, {"headers": GOOD | JSON, "content": b"{"}),
    (422, "malformed", "GET", f"{SYNC}?limit=x", {"headers": GOOD}),
    (422, "malformed", "GET", "/realtime/dead-letters?limit=x", {"headers": OPERATOR}),
    (422, "malformed", "POST", f"{SYNC}/ack", {"headers": GOOD, "json": {"position": "x"}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "method", "path", "options"),
    REFUSED,
    ids=[f"{status}-{method}-{path[:30]}" for status, _, method, path, _ in REFUSED],
)
async def test_an_error_is_that_of_a_websocket(
    server: Server, status: int, code: str, method: str, path: str, options: dict[str, Any]
) -> None:
    """With problems beside where there are several, and nothing else."""
    answer = await server.request(method, path, **options)
    told = answer.json()

    assert (answer.status_code, told["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert told.keys() - {"problems"} == {"type", "code", "message"}
    assert (told["type"], type(told["message"])) == ("error", str)
    for problem in told.get("problems", []):
        assert problem.keys() == {"where", "message"}


@pytest.mark.parametrize(
    ("status", "path", "headers"),
    [(404, "/elsewhere", {}), (403, "/realtime/ws", {"Origin": "https://elsewhere.example"})],
)
async def test_a_refused_websocket_is_told_so_in_the_same_way(
    server: Server, status: int, path: str, headers: dict[str, str]
) -> None:
    """For clients that are no browser."""
    url = f"ws://127.0.0.1:{server.port}{path}"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, proxy=None, additional_headers=headers).__aenter__()

    response = refused.value.response
    assert response.status_code == status
    assert response.body.startswith(b'{"type":"error","code":"')


@pytest.mark.parametrize("path", [SYNC, "/realtime/events", "/realtime/tickets"])
async def test_who_gives_no_token_is_told_of_no_error(server: Server, path: str) -> None:
    """RFC 6750, section 3.1; who gives a bad one is."""
    method = "POST" if path.endswith("tickets") else "GET"
    nothing = await server.request(method, path)
    bad = await server.request(method, path, headers=bearer("x"))

    assert nothing.headers["www-authenticate"] == 'Bearer realm="realtime"'
    assert bad.headers["www-authenticate"] == 'Bearer realm="realtime", error="invalid_token"'


@pytest.mark.parametrize("path", [SYNC, f"{SYNC}/ack", DEVICES])
async def test_a_body_is_not_waited_for_before_the_token_is_right(server: Server, path: str) -> None:
    """Nor read, nor parsed: the answer is there while nothing of the body is."""
    async with raw_client(server.address) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
        client.send_bytes(head.encode())

        assert (await client._reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("body", [{"x" * 5000: 1}, {str(number): 1 for number in range(100)}])
async def test_what_is_wrong_is_told_in_few_words(server: Server, body: Any) -> None:
    """However much is wrong: an answer is not to be larger than its question."""
    answer = await server.request("POST", f"{SYNC}/ack", headers=GOOD, json=body)

    assert answer.status_code == 422
    assert len(answer.content) < 2500


@pytest.mark.parametrize("path", [SYNC, f"{SYNC}/ack", DEVICES])
async def test_a_body_of_very_many_keys_costs_no_more_than_another(server: Server, path: str) -> None:
    """One word for all of them; a report of each would take gigabytes."""
    body = {str(number): 1 for number in range(500)}
    answer = await server.request("POST", path, headers=GOOD, json=body)

    [problem] = answer.json()["problems"]
    assert problem == {"where": ["body"], "message": "An object of so many keys is not taken here."}


async def test_times_are_told_as_in_messages(server: Server, host: asyncpg.Connection) -> None:
    """UTC, milliseconds, `Z`: of devices and of dead letters."""
    user = await app.add_user(host)
    device = {"device_token": f"of {user}", "platform": "ios"}
    registered = await server.request("POST", DEVICES, headers=bearer(issuer.token(user)), json=device)
    event = await app.publish(host, user, "badge_earned")
    await host.execute(
        "INSERT INTO realtime_dead_letters (event_id, user_id, reason) VALUES ($1, $2, 'nacked')", event, user
    )
    letters = await server.request("GET", f"/realtime/dead-letters?user_id={user}", headers=OPERATOR)

    [letter] = letters.json()
    told = registered.json()
    for text in (told["created_at"], told["last_active"], letter["dead_at"], letter["created_at"]):
        assert KINDS["time"](text)

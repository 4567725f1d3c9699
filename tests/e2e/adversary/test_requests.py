"""HTTP requests of somebody who has no token, or shows one bad token after another."""

import json
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from app.request_limits import BODIES_AT_ONCE
from tests.e2e.adversary.conftest import Before, good
from tests.e2e.conftest import Eventually
from tests.support import host as app
from tests.support.client import raw_client
from tests.support.server import Server

ATTEMPTS = 300
"""The default of ATTEMPTS_PER_ADDRESS."""
BODY = 1 << 20
"""The default of BODY_SIZE."""


def forwarded(address: str, **headers: str) -> dict[str, str]:
    """A request as the proxy on this machine hands it on."""
    return {"X-Forwarded-For": address, **headers}


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/realtime/devices"), ("POST", "/realtime/sync"), ("POST", "/realtime/sync/ack")],
)
async def test_a_body_is_not_waited_for_before_the_token_is_looked_at(
    server: Server, method: str, path: str
) -> None:
    """Or anybody could have as much kept and parsed as a body may hold."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Authorization: Bearer a.b.c\r\nContent-Length: 1000000\r\n\r\n"
    )
    async with raw_client(server.address) as client:
        client.send_bytes(head.encode())
        client.send_bytes(b"[" * 100_000)
        answer = await client.read_until(b"}")

    assert answer.startswith(b"HTTP/1.1 401")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "unauthorized"


async def test_bodies_of_a_user_are_kept_so_many_at_a_time(
    server: Server, host: asyncpg.Connection, eventually: Eventually, survives: Before
) -> None:
    """Of each nearly all, and never its end: one more is refused, others are served, and so is he when they are gone."""
    user, other = await app.add_user(host), await app.add_user(host)
    await survives.attack(lambda: send_bodies(server, eventually, user, other), left=BODY)


async def send_bodies(server: Server, eventually: Eventually, user: str, other: str) -> None:
    """As one user, more than are kept; until he is served again."""
    authorization = good(user)["Authorization"]
    head = (
        "POST /realtime/sync HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: {authorization}\r\nContent-Length: {BODY}\r\n\r\n"
    )

    async def ack(who: str) -> int:
        answer = await server.request("POST", "/realtime/sync/ack", json={}, headers=good(who))
        assert answer.status_code == 200 or answer.headers["Retry-After"]
        return answer.status_code

    async with AsyncExitStack() as stack:
        # Twice as many: what asks whether there are too many can take the place of one.
        clients = [
            await stack.enter_async_context(raw_client(server.address)) for _ in range(2 * BODIES_AT_ONCE)
        ]
        for client in clients:
            client.send_bytes(head.encode() + b" " * (BODY - 1))

        async def is_refused() -> bool:
            return await ack(user) == 429

        await eventually(is_refused)
        assert await ack(other) == 200

    async def is_served() -> bool:
        return await ack(user) == 200

    await eventually(is_served)


@pytest.mark.parametrize("part", [b"[],", b"{},", b"[[]],", b"1.5e9,"], ids=bytes.decode)
async def test_what_takes_long_to_read_is_not_read(
    server: Server, host: asyncpg.Connection, part: bytes
) -> None:
    """A body as large as may be, of what costs most per byte: 413; one of a few thousand such parts is looked at."""
    user = await app.add_user(host)
    headers = {**good(user), "Content-Type": "application/json"}

    def body(size: int) -> bytes:
        beginning, end = b'{"device_token":"x","actions":[', b"1]}"
        return beginning + part * ((size - len(beginning + end)) // len(part)) + end

    costly = await server.request("POST", "/realtime/sync", content=body(BODY), headers=headers)
    other = await server.request("POST", "/realtime/sync", content=body(BODY // 64), headers=headers)

    assert (costly.status_code, costly.json()["code"]) == (413, "too_large")
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("address", "path"),
    [("8.8.4.4", "/realtime/devices"), ("8.8.4.5", "/realtime/dead-letters")],
    ids=["user", "operator"],
)
async def test_an_address_may_show_so_many_bad_tokens(
    server: Server, host: asyncpg.Connection, address: str, path: str
) -> None:
    """Then 429 with Retry-After, for good ones too; good ones before were not counted, and others go on."""
    user = await app.add_user(host)
    bad = forwarded(address, Authorization="Bearer a.b.c")
    async with server.http() as client:

        async def status(headers: dict[str, str], at: str = "/realtime/devices") -> Any:
            return (await client.get(at, headers=headers)).status_code

        assert [await status(forwarded(address, **good(user))) for _ in range(50)] == [200] * 50
        refused = [await status(bad, path) for _ in range(ATTEMPTS)]
        while (last := await status(bad, path)) != 429:  # some come back while these take their time
            refused.append(last)
            assert len(refused) < 2 * ATTEMPTS, "they are not counted"
        answer = await client.get("/realtime/devices", headers=forwarded(address, **good(user)))
        elsewhere = await status(forwarded("8.8.4.6", **good(user)))

    assert set(refused) <= {401, 403}
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert elsewhere == 200

"""HTTP requests of somebody who has no token, or shows one bad token after another."""

import json
from typing import Any

import asyncpg
import httpx2
import pytest

from tests.e2e.adversary.conftest import good
from tests.support import host as app
from tests.support.client import raw_client
from tests.support.server import PATIENCE, Server

ATTEMPTS = 300
"""The default of ATTEMPTS_PER_ADDRESS."""

pytestmark = pytest.mark.one_major


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
    """Or anybody could have 8 MiB kept and parsed."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Authorization: Bearer a.b.c\r\nContent-Length: 8000000\r\n\r\n"
    )
    async with raw_client(server.address) as client:
        client.send_bytes(head.encode())
        client.send_bytes(b"[" * 100_000)
        answer = await client.read_until(b"}")

    assert answer.startswith(b"HTTP/1.1 401")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "unauthorized"


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
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE, trust_env=False) as client:

        async def status(headers: dict[str, str], at: str = "/realtime/devices") -> Any:
            return (await client.get(at, headers=headers)).status_code

        assert [await status(forwarded(address, **good(user))) for _ in range(5)] == [200] * 5
        refused = [await status(bad, path) for _ in range(ATTEMPTS)]
        while (last := await status(bad, path)) != 429:  # some come back while these take their time
            refused.append(last)
        answer = await client.get("/realtime/devices", headers=forwarded(address, **good(user)))
        elsewhere = await status(forwarded("8.8.4.6", **good(user)))

    assert set(refused) <= {401, 403}
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert elsewhere == 200

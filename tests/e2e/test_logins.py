"""What becomes of a login: tickets and cookies for it, its renewal, its end, and its revocation.

Two services on one database, as behind a balancer.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import asyncpg
import pytest

from tests.e2e.conftest import Eventually, StartServer, aside
from tests.support import host as app
from tests.support import issuer, stream
from tests.support.client import Client, open_client
from tests.support.issuer import SECRET
from tests.support.key_server import key_server
from tests.support.postgres import Database
from tests.support.server import Server


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Whole seconds count here, so that no leeway may blur them."""
    return {"jwt_secret": SECRET, "jwt_leeway": 0}


@pytest.fixture(scope="module")
def module_other(house: Database, server_settings: dict[str, Any]) -> Iterator[Server]:
    other = Server(house.url, **server_settings)
    aside(other.healthy())
    yield other
    other.end()


@pytest.fixture
def other(module_other: Server) -> Iterator[Server]:
    """The other service, whose log must stay clean too."""
    since = len(module_other.log)
    yield module_other
    assert module_other.mishaps(since) == ""


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def lasting(user: str, seconds: float) -> str:
    """A token for so many seconds, in fractions, as a token may say it."""
    return issuer.token(user, exp=time.time() + seconds)


async def ticket(server: Server, token: str) -> str:
    answer = await server.request("POST", "/realtime/tickets", headers=bearer(token))
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert answer.json()["expires_in_ms"] == 30_000
    return str(answer.json()["ticket"])


async def cookie(server: Server, token: str) -> tuple[str, Any]:
    """The cookie as a browser sends it, and its attributes."""
    answer = await server.request("POST", "/realtime/tickets", params={"as": "cookie"}, headers=bearer(token))
    assert (answer.status_code, answer.json()["ticket"]) == (201, None)
    (morsel,) = SimpleCookie(answer.headers["set-cookie"]).values()
    return f"{morsel.key}={morsel.value}", morsel


async def connected(server: Server, **query: str) -> Client:
    client = await open_client(server.address, **query)
    await client.until(lambda one: one.messages)
    return client


async def listening(server: Server, headers: dict[str, str] | None = None, **query: str) -> stream.Stream:
    one = await stream.request(server.address, f"{stream.PATH}?{urlencode(query)}", headers=headers)
    await one.until(lambda this: this.messages or this.ended)
    return one


# ---- tickets


async def test_a_ticket_is_for_one_connection_on_any_process(
    server: Server, other: Server, host: asyncpg.Connection
) -> None:
    """Of many who bring it at once to both processes one is let in; its user need not be named."""
    user = await app.add_user(host)
    text = await ticket(server, issuer.token(user))

    clients = await asyncio.gather(*(connected(each, ticket=text) for each in (server, other) * 5))

    first = [client.messages[0] for client in clients]
    assert sorted(one["type"] for one in first) == ["connected", *["error"] * 9]
    assert {one.get("user_id") for one in first if one["type"] == "connected"} == {user}
    assert {one["code"] for one in first if one["type"] == "error"} == {"unauthorized"}
    for client in clients:
        if client.messages[0]["type"] == "error":
            assert await client.ended() == 4401
        else:
            await client.vanish()


async def test_a_ticket_serves_a_stream_and_no_http_endpoint(
    server: Server, host: asyncpg.Connection
) -> None:
    """It must be used within its time, is kept as a hash only, and is another user's no more than a token."""
    user, another = await app.add_user(host), await app.add_user(host)
    token = issuer.token(user)
    text = await ticket(server, token)
    assert (await server.get("/realtime/devices", ticket=text)).status_code == 401
    assert (await listening(server, ticket=text)).messages[0]["user_id"] == user
    assert (await listening(server, ticket=text)).status == 401

    kept = await host.fetch("SELECT hash, t::text AS everything FROM realtime_tickets AS t")
    late = await ticket(server, token)
    kept += await host.fetch("SELECT hash, t::text AS everything FROM realtime_tickets AS t")
    assert kept
    assert not any(text in row["everything"] or late in row["everything"] for row in kept)
    await host.execute("UPDATE realtime_tickets SET good_until = now() - interval '1 ms'")
    assert (await listening(server, ticket=late)).status == 401
    assert (await listening(server, ticket=await ticket(server, token), user_id=another)).status == 403
    assert text not in server.log
    assert late not in server.log


async def test_a_ticket_needs_a_token(server: Server, host: asyncpg.Connection) -> None:
    """Neither a ticket nor a cookie makes another one."""
    user = await app.add_user(host)
    text = await ticket(server, issuer.token(user))
    kept, _ = await cookie(server, issuer.token(user))

    for options in (
        {},
        {"params": {"ticket": text}},
        {"headers": {"Cookie": kept}},
        {"headers": bearer("x")},
    ):
        answer = await server.request("POST", "/realtime/tickets", **options)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_old_tickets_go(
    house: Database, host: asyncpg.Connection, start_server: StartServer, eventually: Eventually
) -> None:
    """With the housekeeping; and a deleted user's with the user."""
    server = start_server(house.url, jwt_secret=SECRET, housekeeping_interval=0.1, erase_interval=0.1)
    await server.ready()
    user, leaver = await app.add_user(host), await app.add_user(host)
    await ticket(server, issuer.token(user))
    await host.execute("UPDATE realtime_tickets SET good_until = now() - interval '1 s'")
    await cookie(server, issuer.token(leaver))
    await app.delete_user(host, leaver)

    async def gone() -> bool:
        return not await host.fetchval(
            "SELECT count(*) FROM realtime_tickets WHERE user_id = ANY($1)", [user, leaver]
        )

    await eventually(gone)


# ---- cookies


async def test_a_cookie_serves_streams_for_as_long_as_the_token(
    server: Server, other: Server, host: asyncpg.Connection
) -> None:
    """Again and again, on every process; nothing else takes it, nor does a page of another site send it."""
    user = await app.add_user(host)
    kept, attributes = await cookie(server, issuer.token(user))

    assert attributes["httponly"]
    assert attributes["samesite"].lower() == "strict"
    assert attributes["path"] == "/realtime/events"
    assert 3500 < int(attributes["max-age"]) <= 3600
    assert not attributes["domain"]
    for each in (server, other, server):
        assert (await listening(each, {"Cookie": f"other=x; {kept}"})).messages[0]["user_id"] == user
    value = kept.partition("=")[2]
    assert (await listening(server, ticket=value)).status == 401
    assert (await server.request("GET", "/realtime/devices", headers={"Cookie": kept})).status_code == 401
    client = await open_client(server.address, {"Cookie": kept})
    assert await client.ended() == 4401
    assert (await listening(server, {"Cookie": kept}, user_id="another")).status == 403


async def test_a_cookie_goes_over_tls_only_in_production(
    house: Database, start_server: StartServer, host: asyncpg.Connection
) -> None:
    """Whatever the proxy in front says of how it was asked."""
    server = start_server(house.url, jwt_secret=SECRET, environment="production")
    await server.ready()

    _, attributes = await cookie(server, issuer.token(await app.add_user(host)))

    assert attributes["secure"]


async def test_a_stream_goes_on_with_a_new_cookie_after_its_end(
    server: Server, host: asyncpg.Connection
) -> None:
    """What a browser does by itself: it comes back with the position, and is let in or told 401."""
    user = await app.add_user(host)
    kept, _ = await cookie(server, lasting(user, 2))
    one = await listening(server, {"Cookie": kept})
    await one.until(lambda this: any(each["type"] == "token_expiring" for each in this.messages))
    await one.finished()

    assert one.messages[-1]["code"] == "unauthenticated"
    assert not one.last_event_id.startswith("!")
    back = {"Last-Event-ID": one.last_event_id}
    assert (await listening(server, {"Cookie": kept, **back})).status == 401
    renewed, _ = await cookie(server, issuer.token(user))
    again = await listening(server, {"Cookie": renewed, **back})
    assert again.messages[0]["resumed"] is True


# ---- the end of a token, and another one


async def test_a_connection_ends_with_its_token(server: Server, host: asyncpg.Connection) -> None:
    """It is told before, after `connected`, and closed with 4401 then and not sooner."""
    user = await app.add_user(host)
    ends = time.time() + 2

    client = await open_client(server.address, bearer(issuer.token(user, exp=ends)))
    assert await client.ended() == 4401

    assert time.time() >= ends - 0.01
    assert [message["type"] for message in client.messages] == ["connected", "token_expiring"]
    assert list(client.messages[1]) == ["type", "expires_in_ms"]
    assert 0 < client.messages[1]["expires_in_ms"] <= 2000


async def test_a_connection_goes_on_with_a_new_token(server: Server, host: asyncpg.Connection) -> None:
    """Beyond the end of the old one, with every event; a bad one changes nothing."""
    user = await app.add_user(host)
    old = lasting(user, 3)
    beside = await open_client(server.address, bearer(old))
    client = await open_client(server.address, bearer(old), ack="1")
    await client.until(lambda one: len(one.messages) == 2)
    assert [one["type"] for one in client.messages] == ["connected", "token_expiring"]

    for bad in (issuer.token(user, exp=1), issuer.token(user, key=issuer.OTHER_SECRET), "x", ""):
        before = len(client.messages)
        await client.send(json.dumps({"type": "auth", "token": bad}))
        await client.until(lambda one, before=before: len(one.messages) > before)
        assert client.messages[-1]["code"] == "unauthorized"
    await client.send(json.dumps({"type": "auth", "token": lasting(user, 3600)}))
    await client.until(lambda one: one.messages[-1]["type"] == "authenticated")

    said = client.messages[-1]
    assert list(said) == ["type", "user_id", "expires_in_ms", "timestamp"]
    assert said["user_id"] == user
    assert 3_500_000 < said["expires_in_ms"] <= 3_600_000
    # Whoever has a token of the same end is out, and so that end has passed.
    assert await beside.ended() == 4401
    await app.log_mood(host, user)
    await client.until(lambda one: one.messages[-1]["type"] == "mood_update")
    await client.vanish()


async def test_a_connection_is_never_another_user_s(server: Server, host: asyncpg.Connection) -> None:
    """Whoever logs in as somebody else has to connect anew."""
    user, another = await app.add_user(host), await app.add_user(host)
    client = await open_client(server.address, bearer(issuer.token(user)))

    await client.send(json.dumps({"type": "auth", "token": issuer.token(another)}))

    assert await client.ended() == 4403
    assert client.messages[-1]["code"] == "not_allowed"


# ---- revocation


async def test_a_disconnected_user_is_out_everywhere_until_there_is_a_newer_token(
    server: Server, other: Server, host: asyncpg.Connection
) -> None:
    """On both processes and every transport; tickets and cookies made of the old token are void too."""
    user, bystander = await app.add_user(host), await app.add_user(host)
    old = issuer.token(user, iat=int(time.time()) - 5)
    kept, _ = await cookie(server, old)
    spare = await ticket(server, old)
    clients = [await open_client(each.address, bearer(old)) for each in (server, other)]
    streams = [await listening(each, {"Cookie": kept}) for each in (server, other)]
    stays = await open_client(server.address, bearer(issuer.token(bystander)))

    await host.execute("SELECT realtime_disconnect($1)", user)

    assert [await client.ended() for client in clients] == [4403, 4403]
    for one in streams:
        await one.finished()
        assert one.last_event_id == "!4403"
    for each in (server, other):
        client = await open_client(each.address, bearer(old))
        assert await client.ended() == 4403
        assert client.messages[0]["code"] == "not_allowed"
        assert (await listening(each, bearer(old))).status == 403
        assert (await listening(each, {"Cookie": kept})).status == 403
        answer = await each.request("GET", "/realtime/sync", headers=bearer(old))
        assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
        assert (await each.request("POST", "/realtime/tickets", headers=bearer(old))).status_code == 403
    assert (await listening(server, ticket=spare)).status == 403

    new = issuer.token(user)  # in whole seconds, perhaps of the very second of the revocation
    for each in (server, other):
        client = await open_client(each.address, bearer(new))
        await client.until(lambda one: one.messages)
        assert client.messages[0]["type"] == "connected"
        await app.log_mood(host, user)
        await client.until(lambda one: one.messages[-1]["type"] == "mood_update")
        await client.vanish()
        assert (await each.request("GET", "/realtime/sync", headers=bearer(new))).status_code == 200
    assert stays.close_code is None
    await stays.vanish()


async def test_who_waits_for_news_over_http_is_out_at_once_too(
    server: Server, host: asyncpg.Connection, eventually: Eventually
) -> None:
    """Long before the seconds are over that were asked for."""
    user = await app.add_user(host)
    old = issuer.token(user, iat=int(time.time()) - 5)
    waiting = asyncio.create_task(
        server.request("GET", "/realtime/sync", params={"wait": "25"}, headers=bearer(old))
    )

    async def it_waits() -> bool:
        return bool((await server.health())["delivery"]["waiting"])

    await eventually(it_waits)
    began = time.monotonic()
    await host.execute("SELECT realtime_disconnect($1)", user)
    answer = await waiting

    assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
    assert time.monotonic() - began < 15


async def test_whom_to_let_in_may_be_said(server: Server, host: asyncpg.Connection) -> None:
    """A time a second from now keeps out all of this second; a token that tells no iat cannot be newer."""
    user, nameless = await app.add_user(host), await app.add_user(host)
    token = issuer.token(user)
    await host.execute("SELECT realtime_disconnect($1, now() + interval '1 second')", user)
    await host.execute("SELECT realtime_disconnect($1)", nameless)

    for refused in (token, issuer.token(nameless, iat=None)):
        answer = await server.request("GET", "/realtime/devices", headers=bearer(refused))
        assert answer.status_code == 403
    answer = await server.request(
        "GET", "/realtime/devices", headers=bearer(issuer.token("never seen", iat=None))
    )
    assert answer.status_code == 200

    for wrong in (
        "NULL, now()",
        "'', now()",
        "'u', NULL",
        "'u', 'infinity'",
        "'u', now() + interval '2 hours'",
    ):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await host.execute(f"SELECT realtime_disconnect({wrong})")


async def test_a_revoked_token_does_not_renew(server: Server, host: asyncpg.Connection) -> None:
    """A connection with a newer one stays when its user is disconnected as of earlier; the older is no use to it."""
    user = await app.add_user(host)
    old = issuer.token(user, iat=int(time.time()) - 100)
    client = await open_client(server.address, bearer(issuer.token(user)))
    await client.until(lambda one: one.messages)

    await host.execute("SELECT realtime_disconnect($1, now() - interval '50 seconds')", user)
    await app.log_mood(host, user)
    await client.until(lambda one: one.messages[-1]["type"] == "mood_update")
    assert client.close_code is None
    await client.send(json.dumps({"type": "auth", "token": old}))

    assert await client.ended() == 4403


async def test_a_request_that_waits_is_not_answered_with_what_comes_after_the_revocation(
    server: Server, host: asyncpg.Connection, eventually: Eventually
) -> None:
    """It was allowed when it came."""
    user = await app.add_user(host)
    old = bearer(issuer.token(user, iat=int(time.time()) - 5))
    waiting = asyncio.create_task(server.request("GET", "/realtime/sync", params={"wait": 25}, headers=old))

    async def is_waiting() -> bool:
        return bool((await server.health())["delivery"]["waiting"])

    await eventually(is_waiting)

    async with host.transaction():
        await host.execute("SELECT realtime_disconnect($1)", user)
        await app.log_mood(host, user)

    answer = await waiting
    assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")


async def test_a_deleted_user_s_tokens_are_void(
    server: Server, other: Server, host: asyncpg.Connection
) -> None:
    """Connections close on every process, and nobody comes in by what was issued before."""
    user = await app.add_user(host)
    old = issuer.token(user, iat=int(time.time()) - 5)
    clients = [await open_client(each.address, bearer(old)) for each in (server, other)]

    await app.delete_user(host, user)

    assert [await client.ended() for client in clients] == [4403, 4403]
    again = await open_client(server.address, bearer(old))
    assert await again.ended() == 4403
    assert (await server.request("GET", "/realtime/sync", headers=bearer(old))).status_code == 403


async def test_a_removed_device_is_out_and_its_user_is_not(
    server: Server, other: Server, host: asyncpg.Connection
) -> None:
    """The device's connections close on every process."""
    user = await app.add_user(host)
    mine = bearer(issuer.token(user))
    phone = {"device_token": f"t {user}", "platform": "ios"}
    made = await server.request("POST", "/realtime/devices", json=phone, headers=mine)
    on_phone = await open_client(other.address, mine, device_token=f"t {user}")
    beside = await open_client(other.address, mine)
    await beside.until(lambda one: one.messages)
    await on_phone.until(lambda one: one.messages)

    removed = await server.request("DELETE", f"/realtime/devices/{made.json()['id']}", headers=mine)

    assert removed.status_code == 204
    assert await on_phone.ended() == 4403
    assert beside.close_code is None
    await beside.vanish()


# ---- an issuer who publishes keys


async def test_tokens_of_a_key_server_that_rotates_and_is_away(
    house: Database, host: asyncpg.Connection, start_server: StartServer, eventually: Eventually
) -> None:
    """A slow start refuses for now; then its keys are good, while it is away too, and new ones when it is back."""
    user = await app.add_user(host)
    async with key_server(issuer.jwk("ES256", "one", "one")) as keys:
        keys.may_answer.clear()
        server = start_server(house.url, jwt_jwks_url=keys.url, jwks_cooldown=0.05)
        await server.ready()
        await keys.arrived.wait()
        assert (await server.health())["authentication"]["mode"] == "jwks"
        connecting = asyncio.create_task(
            open_client(server.address, bearer(issuer.signed("ES256", user, name="one", kid="one")))
        )
        assert (await server.health())["status"] == "degraded"
        keys.may_answer.set()
        client = await connecting
        await client.until(lambda one: one.messages)
        assert client.messages[0]["type"] == "connected"
        await client.vanish()

        await keys.stop()
        old = bearer(issuer.signed("ES256", user, name="one", kid="one"))
        new = bearer(issuer.signed("ES256", user, name="two", kid="two"))
        assert (await server.request("GET", "/realtime/devices", headers=old)).status_code == 200
        assert (await server.request("GET", "/realtime/devices", headers=new)).status_code == 503
        client = await open_client(server.address, new)
        assert await client.ended() == 1011
        assert client.messages[0]["code"] == "unavailable"

        keys.keys = [issuer.jwk("ES256", "two", "two")]
        await keys.start()

        async def is_let_in() -> bool:
            return (await server.request("GET", "/realtime/devices", headers=new)).status_code == 200

        await eventually(is_let_in)
        assert (await server.request("GET", "/realtime/devices", headers=old)).status_code == 401

"""What was given up is listed over HTTP, redriven, and arrives as it was."""

from typing import Any

import asyncpg
import pytest

from tests.e2e.conftest import Connect, Eventually, StartServer
from tests.e2e.test_devices import register
from tests.support import host as app
from tests.support.server import Server

LETTERS = "/realtime/dead-letters"


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Nothing else may send it again meanwhile; what is old expires within a moment."""
    return {"stale_after": 3600, "housekeeping_interval": 0.2}


async def listed(server: Server, **query: Any) -> list[dict[str, Any]]:
    answer = await server.get(LETTERS, **{name: str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    return list(answer.json())


async def redrive(server: Server, letter: int) -> int:
    return (await server.request("POST", f"{LETTERS}/{letter}/redrive")).status_code


async def give_up(host: asyncpg.Connection, event_id: int, user: str, device: int | None = None) -> int:
    return await host.fetchval(
        "INSERT INTO realtime_dead_letters (event_id, user_id, device_id, reason, detail)"
        " VALUES ($1, $2, $3, 'nacked', 'no such badge') RETURNING id",
        event_id,
        user,
        device,
    )


async def test_an_expired_event_arrives_at_those_who_are_here_and_at_those_who_return(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """At once and on return, once, with the id and the timestamp that it was given up with."""
    user = await app.add_user(host)
    event = await app.publish(host, user, "badge_earned", badge="first")
    old = await host.fetchval(
        "UPDATE realtime_events SET created_at = date_trunc('milliseconds', now() - interval '31 days')"
        " WHERE id = $1 RETURNING created_at",
        event,
    )

    async def expired() -> bool:
        return bool(await listed(server, user_id=user))

    await eventually(expired)
    [letter] = await listed(server, user_id=user)
    assert letter | {"dead_at": None, "created_at": None, "id": None} == {
        "id": None,
        "event_id": event,
        "user_id": user,
        "device_id": None,
        "reason": "expired",
        "detail": None,
        "attempts": 0,
        "dead_at": None,
        "event_type": "badge_earned",
        "created_at": None,
        "is_redrivable": True,
    }
    # Both devices have been here since, and their positions are beyond it.
    for platform in ("ios", "web"):
        token = f"{platform} {user}"
        await register(server, user, token, platform)
        client = await connect(server, user, device_token=token)
        await app.log_mood(host, user)
        await client.got(1)
        assert event not in client.ids
        if platform == "ios":
            await client.close()
    here = await connect(server, user)
    await app.log_mood(host, user)
    await here.got(1)
    await client.until(lambda one: one.ids[-1] == here.ids[-1])

    assert await redrive(server, letter["id"]) == 204

    for one in (here, client):
        await one.until(lambda this: event in this.ids)
    returned = await connect(server, user, device_token=f"ios {user}")
    await returned.until(lambda one: event in one.ids)
    for one in (here, client, returned):
        await one.ask()
        [message] = [message for message in one.events if message["id"] == event]
        assert message == {
            "type": "badge_earned",
            "id": event,
            "data": {"badge": "first"},
            "timestamp": old.strftime("%Y-%m-%dT%H:%M:%S.") + f"{old.microsecond // 1000:03}Z",
        }
    assert await listed(server, user_id=user) == []
    assert await redrive(server, letter["id"]) == 404

    async def received() -> bool:
        return await host.fetchval(
            "SELECT e.delivered AND e.settled_as IS NULL FROM realtime_events AS e WHERE e.id = $1", event
        )

    await eventually(received)


async def test_what_a_device_gave_up_is_due_to_it(server: Server, host: asyncpg.Connection) -> None:
    """Its letter goes and a record of it comes, whose time is now; the event stays as it is."""
    user = await app.add_user(host)
    device = await register(server, user, f"phone {user}", "ios")
    event = await app.publish(host, user, "badge_earned")
    await host.execute(
        "UPDATE realtime_events SET delivered = true, delivered_at = now() WHERE id = $1", event
    )
    letter = await give_up(host, event, user, device["id"])

    [told] = await listed(server, user_id=user)
    assert (told["device_id"], told["detail"], told["is_redrivable"]) == (device["id"], "no such badge", True)
    assert await redrive(server, letter) == 204

    [due] = await host.fetch(
        "SELECT event_id, device_id, attempts, nacks, first_at <= now() AS now"
        " FROM realtime_redeliveries WHERE user_id = $1",
        user,
    )
    assert tuple(due) == (event, device["id"], 0, 0, True)
    assert await listed(server, user_id=user) == []
    assert await host.fetchval("SELECT delivered FROM realtime_events WHERE id = $1", event)


async def test_a_list_comes_in_pages_and_a_users_letters_go_together(
    server: Server, host: asyncpg.Connection
) -> None:
    """By id, after an id; what cannot be sent again stays, and so do the letters of others."""
    user, other = await app.add_user(host), await app.add_user(host)
    letters = [await give_up(host, await app.publish(host, user, "badge_earned"), user) for _ in range(3)]
    hopeless = await give_up(host, 1 << 40, user)
    await give_up(host, await app.publish(host, other, "badge_earned"), other)

    first = await listed(server, user_id=user, limit=2)
    second = await listed(server, user_id=user, limit=2, after_id=first[-1]["id"])
    everybodys = await listed(server)
    done = await server.request("POST", f"{LETTERS}/redrive", params={"user_id": user})

    assert [one["id"] for one in first + second] == [*letters, hopeless]
    assert {user, other} <= {one["user_id"] for one in everybodys}
    assert done.json() == {"redriven": 3}
    assert [one["id"] for one in await listed(server, user_id=user)] == [hopeless]
    assert len(await listed(server, user_id=other)) == 1


async def test_what_cannot_be_done_is_told(server: Server, host: asyncpg.Connection) -> None:
    """No such letter, one that leads nowhere, one that somebody holds, and what is no number."""
    user = await app.add_user(host)
    letter = await give_up(host, 1 << 41, user)

    missing = await server.request("POST", f"{LETTERS}/{1 << 40}/redrive")
    impossible = await server.request("POST", f"{LETTERS}/{letter}/redrive")
    async with host.transaction():
        await host.execute("SELECT FROM realtime_dead_letters WHERE id = $1 FOR UPDATE", letter)
        held = await server.request("POST", f"{LETTERS}/{letter}/redrive")
    wrong = [
        (await server.request(method, path)).status_code
        for method, path in (
            ("POST", f"{LETTERS}/x/redrive"),
            ("POST", f"{LETTERS}/{1 << 63}/redrive"),
            ("POST", f"{LETTERS}/redrive"),
            ("GET", f"{LETTERS}?limit=0"),
            ("GET", f"{LETTERS}?limit=1001"),
            ("GET", f"{LETTERS}?after_id=-1"),
            ("GET", f"{LETTERS}?user_id=%00"),
        )
    ]

    assert (missing.status_code, missing.json()["code"]) == (404, "no_such_letter")
    assert (impossible.status_code, impossible.json()["code"]) == (409, "not_redrivable")
    assert "kept" in impossible.json()["message"]
    assert held.status_code == 503
    assert int(held.headers["retry-after"]) > 0
    assert wrong == [422] * 7
    assert len(await listed(server, user_id=user)) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "10.0.0.7"},
        {"Origin": "https://evil.example"},
        {"Host": "evil.example"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_only_somebody_on_this_machine_may_ask(
    server: Server, host: asyncpg.Connection, headers: dict[str, str]
) -> None:
    """Nobody behind a proxy and no page in a browser, whatever is asked; the answer says what to do."""
    user = await app.add_user(host)
    letter = await give_up(host, await app.publish(host, user, "badge_earned"), user)

    refused = [
        await server.request(method, path, headers=headers)
        for method, path in (
            ("GET", LETTERS),
            ("GET", f"{LETTERS}?limit=0"),
            ("POST", f"{LETTERS}/{letter}/redrive"),
            ("POST", f"{LETTERS}/redrive?user_id={user}"),
        )
    ]

    for answer in refused:
        assert answer.status_code == 403
        assert answer.json()["code"] == "loopback_only"
        assert "loopback address" in answer.json()["message"]
    assert [one["id"] for one in await listed(server, user_id=user)] == [letter]


async def test_without_the_database_it_is_to_be_tried_again(
    start_server: StartServer,
) -> None:
    """503, as everywhere."""
    server = start_server("postgresql://postgres@127.0.0.1:1/gone")
    await server.answers()

    for method, path in (
        ("GET", LETTERS),
        ("POST", f"{LETTERS}/1/redrive"),
        ("POST", f"{LETTERS}/redrive?user_id=a"),
    ):
        answer = await server.request(method, path)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0

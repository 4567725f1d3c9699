"""Devices over HTTP, and what each gets: what it missed, whoever else had it, and sync rows where they belong."""

import asyncio
import json
import time
from typing import Any

import asyncpg
import pytest

from tests.e2e.conftest import Connect, Eventually, StartServer
from tests.support import host as app
from tests.support.client import Client, open_client
from tests.support.postgres import Database
from tests.support.server import Server

DEVICES = "/realtime/devices"
PROMISED = 1.0
"""Seconds within which a removed device or user is cut off; a test allows ten times as much."""


async def register(
    server: Server, user: str, token: str, platform: str = "web", **more: str
) -> dict[str, Any]:
    device = {"user_id": user, "device_token": token, "platform": platform, **more}
    answer = await server.request("POST", DEVICES, json=device)
    assert answer.status_code in {200, 201}, answer.text
    return {**answer.json(), "status": answer.status_code}


async def settled(host: asyncpg.Connection, eventually: Eventually, user: str) -> None:
    """Wait until everything of a user has been marked and the positions of its devices have it."""

    async def met() -> bool:
        return bool(
            await host.fetchval(
                "SELECT NOT EXISTS (SELECT FROM realtime_events WHERE user_id = $1 AND NOT delivered)"
                " AND NOT EXISTS (SELECT FROM realtime_delivery WHERE user_id = $1 AND state <> 'received')",
                user,
            )
        )

    await eventually(met)


async def test_registering_is_201_once_and_200_after(server: Server, host: asyncpg.Connection) -> None:
    """With the device in the answer and never its token; GET lists it, DELETE removes it."""
    user = await app.add_user(host)

    first = await server.request(
        "POST", DEVICES, json={"user_id": user, "device_token": f"t {user}", "platform": "ios"}
    )
    again = await server.request(
        "POST", DEVICES, json={"user_id": user, "device_token": f"t {user}", "platform": "android"}
    )
    listed = await server.get(DEVICES, user_id=user)
    device_id = first.json()["id"]
    removed = await server.request("DELETE", f"{DEVICES}/{device_id}", params={"user_id": user})
    gone = await server.request("DELETE", f"{DEVICES}/{device_id}", params={"user_id": user})
    empty = await server.get(DEVICES, user_id=user)

    assert (first.status_code, again.status_code) == (201, 200)
    assert set(first.json()) == {"id", "user_id", "platform", "last_active", "created_at"}
    assert again.json()["id"] == device_id
    assert again.json()["platform"] == "android"
    assert [device["id"] for device in listed.json()] == [device_id]
    assert (removed.status_code, gone.status_code) == (204, 404)
    assert empty.json() == []
    assert f"t {user}" not in listed.text + first.text


async def test_a_device_needs_a_user_who_exists(server: Server) -> None:
    """404, with a word on why."""
    device = {"user_id": "nobody at all", "device_token": "t of nobody", "platform": "ios"}
    answer = await server.request("POST", DEVICES, json=device)
    assert answer.status_code == 404
    assert (answer.json()["code"], "users" in answer.json()["message"]) == ("no_such_user", True)


WRONG = {
    "no body": None,
    "no token": {"user_id": "ada", "platform": "ios"},
    "no platform": {"user_id": "ada", "device_token": "secret-token"},
    "empty token": {"user_id": "ada", "device_token": "", "platform": "ios"},
    "long token": {"user_id": "ada", "device_token": "secret-token" * 22, "platform": "ios"},
    "NUL in the token": {"user_id": "ada", "device_token": "secret-token\x00", "platform": "ios"},
    "a lone surrogate in the token": {
        "user_id": "ada",
        "device_token": "secret-token\ud800",
        "platform": "ios",
    },
    "a lone surrogate in the user": {"user_id": "\udfff", "device_token": "secret-token", "platform": "ios"},
    "a number as a token": {"user_id": "ada", "device_token": 7, "platform": "ios"},
    "another platform": {"user_id": "ada", "device_token": "secret-token", "platform": "windows"},
    "a key nobody knows": {"user_id": "ada", "device_token": "secret-token", "platform": "ios", "x": 1},
    "a key of odd letters": {
        "user_id": "ada",
        "device_token": "secret-token",
        "platform": "ios",
        "\ud800": 1,
    },
    "a list": [],
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_registration_is_422_and_does_not_repeat_the_token(server: Server, body: Any) -> None:
    """Nor does the log."""
    headers = {"Content-Type": "application/json"}
    answer = await server.request("POST", DEVICES, content=json.dumps(body), headers=headers)

    assert answer.status_code == 422
    assert (answer.json()["code"], bool(answer.json()["problems"])) == ("malformed", True)
    assert "secret-token" not in answer.text
    assert "secret-token" not in server.log


@pytest.mark.parametrize("path", ["/0", "/-1", "/9223372036854775808", "/x", "/1?user_id=", "/1?user_id=%00"])
async def test_a_wrong_removal_is_422(server: Server, path: str) -> None:
    """Never an error of ours."""
    query = "" if "?" in path else "?user_id=ada"
    assert (await server.request("DELETE", f"{DEVICES}{path}{query}")).status_code == 422


async def test_nobody_removes_the_device_of_another(server: Server, host: asyncpg.Connection) -> None:
    """It is not found."""
    user, other = await app.add_user(host), await app.add_user(host)
    device = await register(server, user, f"t {user}")

    answer = await server.request("DELETE", f"{DEVICES}/{device['id']}", params={"user_id": other})

    assert answer.status_code == 404
    assert len((await server.get(DEVICES, user_id=user)).json()) == 1


async def test_each_device_gets_what_it_missed_itself(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """The phone is away while the laptop reads; when it returns it gets all of that, in order, once."""
    user = await app.add_user(host)
    for token in ("phone", "laptop"):
        await register(server, user, f"{token} {user}")
    phone = await connect(server, user, device_token=f"phone {user}")
    laptop = await connect(server, user, device_token=f"laptop {user}")
    await app.log_moods(host, [user], 3)
    await phone.got(3)
    await laptop.got(3)
    await settled(host, eventually, user)
    await phone.vanish()

    await app.log_moods(host, [user], 700)
    await laptop.got(703)

    async def all_are_delivered() -> bool:
        return not await host.fetchval(
            "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND NOT delivered", user
        )

    await eventually(all_are_delivered)
    phone = await connect(server, user, device_token=f"phone {user}")
    await phone.got(700)
    await app.log_mood(host, user)
    await phone.got(701)

    assert phone.ids == (await laptop.got(704) and laptop.ids[3:])
    assert (await host.fetchval("SELECT count(*) FROM realtime_events WHERE user_id = $1", user)) == 704


async def test_a_device_that_has_everything_gets_nothing_again(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """However often it comes back."""
    user = await app.add_user(host)
    await register(server, user, f"t {user}")
    client = await connect(server, user, device_token=f"t {user}")
    await app.log_moods(host, [user], 5)
    await client.got(5)
    await settled(host, eventually, user)

    for _ in range(3):
        await client.vanish()
        client = await connect(server, user, device_token=f"t {user}")
        await app.log_mood(host, user, 99)
        assert [event["data"]["mood_score"] for event in await client.got(1)] == [99]
        await settled(host, eventually, user)


async def test_a_new_device_begins_with_what_nobody_got(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """What another device had before it was registered is not for it."""
    user = await app.add_user(host)
    await register(server, user, f"old {user}")
    old = await connect(server, user, device_token=f"old {user}")
    await app.log_moods(host, [user], 2)
    await old.got(2)
    await settled(host, eventually, user)
    await old.vanish()
    await app.log_mood(host, user, 3)

    await register(server, user, f"new {user}")
    await app.log_mood(host, user, 4)
    new = await connect(server, user, device_token=f"new {user}")
    await app.log_mood(host, user, 5)

    assert [event["data"]["mood_score"] for event in await new.got(3)] == [3, 4, 5]


async def test_a_renamed_device_keeps_its_position(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """A push token that rotates costs neither loss nor repetition; the old one is unknown then."""
    user = await app.add_user(host)
    device = await register(server, user, f"before {user}")
    reader = await register(server, user, f"other {user}")
    other = await connect(server, user, device_token=f"other {user}")
    client = await connect(server, user, device_token=f"before {user}")
    await app.log_moods(host, [user], 2)
    await client.got(2)
    await settled(host, eventually, user)
    await client.vanish()
    await app.log_mood(host, user, 3)
    await other.got(3)

    renamed = await register(server, user, f"after {user}", previous_token=f"before {user}")
    again = await register(server, user, f"after {user}", previous_token=f"before {user}")
    client = await connect(server, user, device_token=f"after {user}")
    events = await client.got(1)
    await client.ask()
    refused = await open_client(server.address, user_id=user, device_token=f"before {user}")

    assert (renamed["status"], renamed["id"]) == (200, device["id"])
    assert (again["status"], again["id"]) == (200, device["id"])
    assert [event["data"]["mood_score"] for event in events] == [3]
    assert len(client.ids) == 1
    assert await refused.ended() == 4400
    assert {one["id"] for one in (await server.get(DEVICES, user_id=user)).json()} == {
        device["id"],
        reader["id"],
    }


async def test_a_token_that_another_user_registers_moves_there(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """A phone changes hands: the former user's connection is closed, nothing of theirs goes to the new one."""
    former, user = await app.add_user(host), await app.add_user(host)
    await register(server, former, f"t {user}", "ios")
    theirs = await connect(server, former, device_token=f"t {user}")
    await app.queue_sync(host, former, "private")

    moved = await register(server, user, f"t {user}", "android")

    assert moved["status"] == 201
    assert await theirs.ended(within=10 * PROMISED) == 4403
    assert (await server.get(DEVICES, user_id=former)).json() == []
    client = await connect(server, user, device_token=f"t {user}")
    await app.log_mood(host, former)
    await app.log_mood(host, user, 4)
    assert [event["data"]["mood_score"] for event in await client.got(1)] == [4]


async def test_sync_rows_go_to_phones_only_and_in_order_with_events(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """Live to every phone but the one that uploaded them; neither to a browser nor to a nameless client."""
    user = await app.add_user(host)
    ids = {
        platform: (await register(server, user, f"{platform} {user}", platform))["id"]
        for platform in ("ios", "android", "web")
    }
    clients: dict[str, Client] = {
        platform: await connect(server, user, device_token=f"{platform} {user}") for platform in ids
    }
    clients["nameless"] = await connect(server, user)

    async with host.transaction():
        await app.log_mood(host, user, 1)
        await app.queue_sync(host, user, "first", {"n": 1})
        await app.log_mood(host, user, 2)
    uploaded = await app.queue_sync(host, user, "uploaded by the ios")  # moved below, in its own transaction
    await host.execute("UPDATE sync_queue SET device_id = $1 WHERE id = $2", ids["ios"], uploaded)
    async with host.transaction():
        await host.execute(
            "INSERT INTO sync_queue (user_id, action_type, payload, device_id) VALUES ($1, 'second', '{}', $2)",
            user,
            ids["ios"],
        )
        await app.log_mood(host, user, 3)

    def seen(client: Client) -> list[Any]:
        return [
            event["data"].get("action_type") or event["data"]["mood_score"]
            for event in client.events
            if event["data"].get("action_type") != "uploaded by the ios"
        ]

    for client in clients.values():
        await client.until(lambda one: one.events and one.events[-1]["data"].get("mood_score") == 3)
    assert seen(clients["android"]) == [1, "first", 2, "second", 3]
    assert seen(clients["ios"]) == [1, "first", 2, 3]
    assert seen(clients["web"]) == seen(clients["nameless"]) == [1, 2, 3]

    async def all_are_synced() -> bool:
        return not await host.fetchval(
            "SELECT count(*) FROM sync_queue WHERE user_id = $1 AND NOT synced", user
        )

    await eventually(all_are_synced)


async def test_sync_rows_wait_for_the_phone_and_come_once(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """A browser is there all the time; the rows stay unsynced until a phone has them, among the events."""
    user = await app.add_user(host)
    await register(server, user, f"web {user}")
    await register(server, user, f"ios {user}", "ios")
    browser = await connect(server, user, device_token=f"web {user}")

    for number in range(1, 4):
        await app.queue_sync(host, user, f"action {number}", {"n": number})
        await app.log_mood(host, user, number)
    await browser.got(3)
    unsynced = "SELECT count(*) FROM sync_queue WHERE user_id = $1 AND NOT synced"
    assert await host.fetchval(unsynced, user) == 3
    phone = await connect(server, user, device_token=f"ios {user}")
    events = await phone.got(6)

    async def all_are_synced() -> bool:
        return await host.fetchval(unsynced, user) == 0

    await eventually(all_are_synced)
    await settled(host, eventually, user)
    await phone.vanish()
    phone = await connect(server, user, device_token=f"ios {user}")
    await app.log_mood(host, user, 4)
    again = await phone.got(1)

    assert [event["type"] for event in events] == ["sync", "mood_update"] * 3
    assert [event["data"]["payload"] for event in events[::2]] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [event["data"].get("mood_score") for event in again] == [4]


async def test_a_removed_device_is_cut_off_at_once(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """With 4403; the user's other connections stay."""
    user = await app.add_user(host)
    device = await register(server, user, f"t {user}")
    await register(server, user, f"other {user}")
    client = await connect(server, user, device_token=f"t {user}")
    others = [await connect(server, user, device_token=f"other {user}"), await connect(server, user)]
    began = time.monotonic()

    await server.request("DELETE", f"{DEVICES}/{device['id']}", params={"user_id": user})

    assert await client.ended() == 4403
    assert time.monotonic() - began < 10 * PROMISED
    await app.log_mood(host, user)
    for other in others:
        await other.got(1)
    refused = await open_client(server.address, user_id=user, device_token=f"t {user}")
    assert await refused.ended() == 4400


async def test_nothing_of_a_deleted_user_is_delivered(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """All connections close with 4403, whoever connects is turned away, and the rows are gone soon."""
    user = await app.add_user(host)
    await register(server, user, f"t {user}", "ios")
    clients = [await connect(server, user, device_token=f"t {user}"), await connect(server, user)]
    await app.log_mood(host, user)
    for client in clients:
        await client.got(1)
    began = time.monotonic()

    async with host.transaction():
        await app.log_moods(host, [user], 50)
        await app.delete_user(host, user)
    codes = await asyncio.gather(*(client.ended() for client in clients))
    took = time.monotonic() - began
    late = await open_client(server.address, user_id=user)

    assert codes == [4403, 4403]
    assert took < 10 * PROMISED
    assert await late.ended() == 4403
    assert late.ids == []
    for client in clients:
        assert len(client.ids) == 1, "what was committed with the deletion is not delivered"

    async def nothing_is_left() -> bool:
        return not await host.fetchval(
            "SELECT (SELECT count(*) FROM realtime_events WHERE user_id = $1)"
            " + (SELECT count(*) FROM users_devices WHERE user_id = $1)",
            user,
        )

    await eventually(nothing_is_left)


async def test_a_connection_can_be_closed_by_the_host(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """A row in `realtime_commands` is enough, without a bell."""
    user = await app.add_user(host)
    client = await connect(server, user)
    other = await connect(server, await app.add_user(host))

    await host.execute("INSERT INTO realtime_commands (kind, user_id) VALUES ('disconnect', $1)", user)

    assert await client.ended() == 4403
    await other.ask()


async def test_a_newer_connection_of_a_device_takes_over(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """The older one is closed with 4409, and the newer one stays."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    older = await connect(server, user, device_token=f"phone {user}")

    newer = await connect(server, user, device_token=f"phone {user}")

    assert await older.ended() == 4409
    await app.log_mood(host, user)
    await newer.got(1)


async def test_it_takes_over_from_another_process(
    house: Database, start_server: StartServer, server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """A phone that changed the process it talks to leaves nothing behind on the other."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    elsewhere = start_server(house.url)
    await elsewhere.ready()
    older = await connect(elsewhere, user, device_token=f"phone {user}")
    other_device = await connect(elsewhere, user)

    await connect(server, user, device_token=f"phone {user}")

    assert await older.ended(within=10 * PROMISED) == 4409
    await app.log_mood(host, user)
    await other_device.got(1)

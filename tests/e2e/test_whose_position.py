"""Positions given by who was not sent everything that they cover: another user, or one who gets no sync rows."""

from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from tests.e2e.conftest import Connect
from tests.e2e.test_devices import register
from tests.e2e.test_sync import SYNC, acked, actions, sync
from tests.support import host as app
from tests.support.server import Server

Given = Callable[[Server, str, Connect], Awaitable[str]]
"""Gets a position of a user that covers what there is now."""


async def without_device(server: Server, user: str, connect: Connect) -> str:
    client = await connect(server, user, position="")
    await client.ask()
    return str(client.messages[-1]["position"])


async def over_http(server: Server, user: str, connect: Connect) -> str:
    return str((await sync(server, user))["next"])


async def of_a_browser(server: Server, user: str, connect: Connect) -> str:
    await register(server, user, f"browser of {user}")
    client = await connect(server, user, position="", device_token=f"browser of {user}")
    await client.ask()
    return str(client.messages[-1]["position"])


async def is_synced(host: asyncpg.Connection, row_id: int) -> bool:
    return bool(await host.fetchval("SELECT synced FROM sync_queue WHERE id = $1", row_id))


async def place(host: asyncpg.Connection, phone: str) -> str:
    """What is stored of a device, as text."""
    row = "SELECT (d.position_seen, d.position_reading, d.position_after_id)::text FROM users_devices AS d"
    return str(await host.fetchval(f"{row} WHERE device_token = $1", phone))


@pytest.fixture
async def user(host: asyncpg.Connection) -> str:
    return await app.add_user(host)


@pytest.fixture
async def phone(server: Server, user: str) -> str:
    """The token of the user's phone."""
    await register(server, user, f"phone of {user}", "ios")
    return f"phone of {user}"


every_origin = pytest.mark.parametrize("given", [without_device, over_http, of_a_browser])


@every_origin
async def test_a_phone_gets_the_sync_rows_that_its_position_was_given_without(
    server: Server, host: asyncpg.Connection, connect: Connect, user: str, phone: str, given: Given
) -> None:
    """It is resumed nevertheless; from the position that it is given then, exactly."""
    row_id = await app.queue_sync(host, user, "refresh")
    position = await given(server, user, connect)

    client = await connect(server, user, device_token=phone, position=position)
    await client.until(lambda one: len(one.messages) == 2)

    greeting, row = client.messages
    assert (greeting["resumed"], greeting["reason"]) == (True, None)
    assert (row["type"], row["id"]) == ("sync", row_id)
    again = await connect(server, user, device_token=phone, position=row["position"])
    await again.ask()
    assert [message["type"] for message in again.messages] == ["connected", "pong"]
    assert again.messages[0]["position"] == row["position"]


@every_origin
async def test_so_does_one_that_asks_over_http(
    server: Server, host: asyncpg.Connection, connect: Connect, user: str, phone: str, given: Given
) -> None:
    """And goes on with the position of the answer."""
    await app.queue_sync(host, user, "refresh")
    position = await given(server, user, connect)

    answer = await sync(server, user, device_token=phone, position=position)
    after = await sync(server, user, device_token=phone, position=answer["next"])

    assert (actions(answer), answer["resumed"], answer["reason"]) == (["refresh"], True, None)
    assert (actions(after), after["resumed"]) == ([], True)


@every_origin
async def test_to_acknowledge_such_a_position_marks_events_only(
    server: Server, host: asyncpg.Connection, connect: Connect, user: str, phone: str, given: Given
) -> None:
    """Nor does it move what is stored of the phone."""
    row_id = await app.queue_sync(host, user, "refresh")
    await app.log_mood(host, user)
    position = await given(server, user, connect)

    kept = await place(host, phone)

    await acked(server, user, device_token=phone, position=position)

    assert await place(host, phone) == kept
    assert not await is_synced(host, row_id)
    assert actions(await sync(server, user, device_token=phone)) == ["refresh"]
    assert await host.fetchval("SELECT bool_and(delivered) FROM realtime_events WHERE user_id = $1", user)


async def test_a_new_phone_with_the_position_of_the_old_one_gets_what_that_uploaded(
    server: Server, user: str, phone: str
) -> None:
    """A phone gets none of its own uploads; another one does."""
    old = f"old {phone}"
    await register(server, user, old, "ios")
    action = {"key": "1", "action_type": "draft", "payload": {}}
    upload = {"user_id": user, "device_token": old, "actions": [action]}
    answer = await server.request("POST", SYNC, json=upload)
    assert [result["status"] for result in answer.json()["results"]] == ["accepted"]
    position = (await sync(server, user, device_token=old))["next"]

    assert actions(await sync(server, user, device_token=phone, position=position)) == ["draft"]


async def test_the_position_of_another_user_is_none(
    server: Server, host: asyncpg.Connection, connect: Connect, user: str
) -> None:
    """An application in which somebody else has logged in gives it by mistake, and nothing is lost by it."""
    before = await app.add_user(host)
    await app.log_mood(host, user, 3)
    position = await without_device(server, before, connect)

    answer = await sync(server, user, position=position)
    refused = await server.request("POST", f"{SYNC}/ack", json={"user_id": user, "position": position})
    client = await connect(server, user, position=position)
    await client.got(1)

    assert [one["data"]["mood_score"] for one in answer["messages"]] == [3]
    assert (answer["resumed"], answer["reason"]) == (False, "malformed")
    assert (refused.status_code, refused.json()["code"]) == (409, "malformed")
    assert (client.messages[0]["resumed"], client.messages[0]["reason"]) == (False, "malformed")

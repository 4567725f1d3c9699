"""Who gets what, on every transport: nobody what is another's, each device what it missed, phones their sync rows."""

import asyncpg
import pytest

from tests.e2e.conformance.apps import TRANSPORTS, App
from tests.e2e.conformance.conftest import Enroll
from tests.support import host as app
from tests.support.inbox import Event
from tests.support.server import Server

each_transport = pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda transport: transport.name)


def kinds(events: list[Event]) -> list[str]:
    """What each is: a mood, a message of which room, a sync action, or whatever it is called."""
    told = {
        "chat_message": lambda data: data["room_id"],
        "sync": lambda data: data["action_type"],
    }
    return [told.get(event["type"], lambda _, event=event: event["type"])(event["data"]) for event in events]


@each_transport
async def test_nothing_of_others_arrives_live_or_replayed(
    server: Server, host: asyncpg.Connection, enroll: Enroll, transport: type[App]
) -> None:
    """Not another user's events, not those of a room it is not in, and none of a room it has left."""
    user, other = await app.add_user(host), await app.add_user(host)
    shared = await app.create_room(host, user, other, room_id=f"shared {user}")
    theirs = await app.create_room(host, other, room_id=f"theirs {user}")
    one = await enroll(transport, user)

    async def write() -> None:
        await app.log_mood(host, other)
        await app.post_message(host, other, theirs)
        await app.post_message(host, other, shared)
        await app.publish(host, user, "end")

    await one.connect(server.address)
    await write()
    assert kinds(await one.get(2)) == [shared, "end"]
    await one.drop()
    await write()
    await app.leave_room(host, shared, user)
    await write()
    await one.connect(server.address)
    assert kinds(await one.get(2))[2:] == ["end", "end"]
    await write()
    assert kinds(await one.get(1))[4:] == ["end"]
    await one.finish()
    assert kinds(one.got) == [shared, "end", "end", "end", "end"]


@each_transport
async def test_sync_rows_go_to_other_phones_only(
    server: Server, host: asyncpg.Connection, enroll: Enroll, transport: type[App]
) -> None:
    """Never to the one that uploaded them, never to a browser; events to all, in one order with them."""
    user = await app.add_user(host)
    uploader, phone = [await enroll(transport, user) for _ in range(2)]
    browser = await enroll(transport, user, platform="web")
    apps = (uploader, phone, browser)
    for one in apps:
        await one.connect(server.address)

    async def write(turn: str) -> None:
        await app.log_mood(host, user)
        action = {"key": turn, "action_type": f"upload {turn}", "payload": {}}
        answer = await server.request("POST", "/realtime/sync", json={**uploader.who, "actions": [action]})
        assert answer.json()["results"][0]["status"] == "accepted"
        await app.queue_sync(host, user, f"host {turn}")
        await app.publish(host, user, "end")

    def expected(one: App, *turns: str) -> list[str]:
        told = []
        for turn in turns:
            uploaded = [f"upload {turn}"] if one is phone else []
            queued = [f"host {turn}"] if one is not browser else []
            told += ["mood_update", *uploaded, *queued, "end"]
        return told

    await write("live")
    for one in apps:
        assert kinds(await one.get(len(expected(one, "live")))) == expected(one, "live")
        await one.finish()
        await one.drop()
    await write("missed")
    for one in apps:
        await one.connect(server.address)
        missed = len(expected(one, "missed"))
        assert kinds(await one.get(missed)) == expected(one, "live", "missed")
        await one.finish()
        assert kinds(one.got) == expected(one, "live", "missed")


@each_transport
async def test_two_devices_of_a_user_each_get_what_they_missed(
    server: Server, host: asyncpg.Connection, enroll: Enroll, transport: type[App]
) -> None:
    """What the one has had says nothing about the other."""
    user = await app.add_user(host)
    one, other = [await enroll(transport, user) for _ in range(2)]

    async def write(count: int) -> None:
        await app.log_moods(host, [user], count)

    await one.connect(server.address)
    await write(3)
    await one.get(3)
    await other.connect(server.address)
    await other.get(3)
    await other.finish()
    await other.drop()
    await write(60)
    await one.get(60)
    await one.finish()
    await one.drop()
    await write(4)
    await other.connect(server.address)
    await other.get(64)
    await one.connect(server.address)
    await one.get(4)
    await write(1)
    for each in (one, other):
        await each.get(1)
        await each.finish()

    assert one.got == other.got
    assert len(one.got) == 68
    assert all(each.repeated <= each.repeats_at_most for each in (one, other))


async def test_an_event_is_the_same_on_every_transport(
    server: Server, host: asyncpg.Connection, enroll: Enroll
) -> None:
    """The same JSON, live and replayed; what clients asked for beside it comes after it."""
    user, other = await app.add_user(host), await app.add_user(host)
    room = await app.create_room(host, user, other)
    apps = [await enroll(transport, user) for transport in TRANSPORTS]

    async def write() -> None:
        await app.log_mood(host, user, 3)
        await app.post_message(host, other, room, content="\u00e9\u2028 said in confidence")
        await app.write_entry(host, user)
        await app.queue_sync(host, user, "refresh", {"what": ["\u4e2d", 1.5, None, {"a": True}]})
        await app.publish(host, user, "note", text='\u00fc \U0001f600 "quoted" \\ \n', n=1e100, nothing=None)

    await write()
    for one in apps:
        await one.connect(server.address)
        await one.get(5)
    await write()
    for one in apps:
        await one.get(5)
        await one.finish()

    first, *rest = [one.got for one in apps]
    assert len(first) == 10
    for got in rest:
        assert got == first
    assert all(list(message) == ["type", "id", "data", "timestamp"] for message in first)
    assert "confidence" not in str(first)

"""What a device uploads: each action once, for the user's other devices and for the host."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.e2e.conftest import Connect, StartServer
from tests.e2e.test_devices import register
from tests.e2e.test_sync import SYNC, acked, actions, contents, sync
from tests.support import host as app
from tests.support.postgres import Database
from tests.support.server import Server

PATIENT = 0.5
"""Seconds that an upload waits for what a host holds; a test allows ten times as much."""
ROWS = (
    "SELECT key, action_type, payload::text, device_id, synced FROM sync_queue WHERE user_id = $1 ORDER BY id"
)


def action(key: Any, action_type: Any = "entry_read", payload: Any = None) -> dict[str, Any]:
    return {"key": key, "action_type": action_type, "payload": {} if payload is None else payload}


async def upload(server: Server, user: str, token: str, *items: Any) -> list[dict[str, Any]]:
    body = {"user_id": user, "device_token": token, "actions": items}
    # By hand: the client would refuse to write some of what is tried here.
    answer = await server.request(
        "POST", SYNC, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


def statuses(results: list[dict[str, Any]]) -> list[str]:
    return [result["status"] for result in results]


async def test_an_upload_is_taken_once_however_often_it_comes(
    server: Server, host: asyncpg.Connection
) -> None:
    """In its order, with the device and the key; repeated it changes nothing."""
    user = await app.add_user(host)
    device = await register(server, user, f"phone {user}", "ios")
    items = [
        action("z", "first", {"n": 1}),
        action("a", "second", {"n": [2.5, None, "ü"]}),
        action("m", "third"),
    ]

    results = await upload(server, user, f"phone {user}", *items)
    before = await contents(host, user)
    again = await upload(server, user, f"phone {user}", *items)

    assert results == [{"key": key, "status": "accepted", "reason": None} for key in ("z", "a", "m")]
    assert statuses(again) == ["duplicate"] * 3
    assert await contents(host, user) == before
    rows = [tuple(row) for row in await host.fetch(ROWS, user)]
    assert [row[:2] for row in rows] == [("z", "first"), ("a", "second"), ("m", "third")]
    assert [json.loads(row[2]) for row in rows] == [{"n": 1}, {"n": [2.5, None, "ü"]}, {}]
    assert {row[3:] for row in rows} == {(device["id"], False)}


async def test_a_key_counts_once_per_user(server: Server, host: asyncpg.Connection) -> None:
    """Twice in one upload and from another device of the user it is a duplicate; of another user it is new."""
    user, other = await app.add_user(host), await app.add_user(host)
    for one, token in ((user, "phone"), (user, "laptop"), (other, "theirs")):
        await register(server, one, f"{token} {user}", "web")

    first = await upload(server, user, f"phone {user}", action("k", "one"), action("k", "two"), action("l"))
    second = await upload(server, user, f"laptop {user}", action("l"), action("n"))
    theirs = await upload(server, other, f"theirs {user}", action("k"))

    assert statuses(first) == ["accepted", "duplicate", "accepted"]
    assert statuses(second) == ["duplicate", "accepted"]
    assert statuses(theirs) == ["accepted"]
    assert [(row["key"], row["action_type"]) for row in await host.fetch(ROWS, user)] == [
        ("k", "one"),
        ("l", "entry_read"),
        ("n", "entry_read"),
    ]


async def test_it_goes_to_the_other_phones_and_to_no_other_device(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """Live and by sync, in order; the uploader neither gets it nor confirms it."""
    user = await app.add_user(host)
    for platform in ("ios", "android", "web"):
        await register(server, user, f"{platform} {user}", platform)
    uploader = await connect(server, user, device_token=f"ios {user}", position="")
    other = await connect(server, user, device_token=f"android {user}")
    browser = await connect(server, user, device_token=f"web {user}", position="")

    await upload(server, user, f"ios {user}", *(action(str(number), f"{number}") for number in range(100)))
    got = await other.got(100)
    waited = await sync(server, user, device_token=f"ios {user}", wait=0.1)
    await app.log_mood(host, user)
    for client in (uploader, browser):
        await client.got(1)
        await client.ask()

    assert [event["data"]["action_type"] for event in got] == [str(number) for number in range(100)]
    assert actions(waited) == []
    assert [event["type"] for event in uploader.events + browser.events] == ["mood_update"] * 2


async def test_what_nobody_else_has_stays_unsynced(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """The uploader and a browser come and go with positions that cover it; then another phone gets it."""
    user = await app.add_user(host)
    for platform in ("ios", "web"):
        await register(server, user, f"{platform} {user}", platform)
    await upload(server, user, f"ios {user}", action("k"))
    for platform in ("ios", "web"):
        token = f"{platform} {user}"
        first = await sync(server, user, device_token=token)
        await acked(server, user, device_token=token, position=first["next"])
        client = await connect(server, user, device_token=token, position=first["next"])
        await app.log_mood(host, user)
        await client.got(1)
        await acked(server, user, device_token=token, position=client.events[-1]["position"])
        await client.close()

    await register(server, user, f"new {user}", "android")
    answer = await sync(server, user, device_token=f"new {user}")

    assert [row["synced"] for row in await host.fetch(ROWS, user)] == [False]
    assert actions(answer) == ["entry_read"]


async def test_replays_at_the_same_time_insert_once(
    house: Database, start_server: StartServer, server: Server, host: asyncpg.Connection
) -> None:
    """By two processes, the keys in opposite orders: none fails, and each key is accepted once."""
    user = await app.add_user(host)
    other = start_server(house.url)
    await other.ready()
    await register(server, user, f"phone {user}", "ios")
    for turn in range(10):
        items = [action(f"{turn} {number}") for number in range(100)]
        results = await asyncio.gather(
            *(
                upload(one, user, f"phone {user}", *order)
                for one in (server, other)
                for order in (items, items[::-1])
            )
        )
        accepted = [
            result["key"] for answer in results for result in answer if result["status"] == "accepted"
        ]
        assert sorted(accepted) == sorted(item["key"] for item in items)
    assert len(await host.fetch(ROWS, user)) == 1000


async def test_an_upload_gives_way_to_a_host(server: Server, host: asyncpg.Connection) -> None:
    """To one that holds the user, and to one that has queued a row of the same key and not committed.

    Before either could become the victim of a deadlock; the client tries again.
    """
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    body = {"user_id": user, "device_token": f"phone {user}", "actions": [action("a"), action("k")]}
    queue = "INSERT INTO sync_queue (user_id, action_type, payload, key) VALUES ($1, 'by host', '{}', $2)"
    for held in ("SELECT FROM users WHERE id = $1 AND $2 <> '' FOR UPDATE", queue):
        async with host.transaction():
            await host.execute(held, user, "k")
            began = time.monotonic()
            answer = await server.request("POST", SYNC, json=body)
            took = time.monotonic() - began
            await host.execute(queue, user, f"after {held}")

        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert took < 10 * PATIENT

    assert statuses(await upload(server, user, f"phone {user}", *body["actions"])) == [
        "accepted",
        "duplicate",
    ]


INVALID: dict[str, Any] = {
    "no object": 7,
    "null": None,
    "a list": ["key"],
    "no key": {"action_type": "x", "payload": {}},
    "an empty key": action(""),
    "a long key": action("k" * 256),
    "a number as a key": action(7),
    "NUL in the key": action("k\x00"),
    "a lone surrogate in the key": action("\ud800"),
    "no type": {"key": "bad", "payload": {}},
    "an empty type": action("bad", ""),
    "a long type": action("bad", "x" * 51),
    "NUL in the type": action("bad", "\x00"),
    "a lone surrogate in the type": action("bad", "\udfff"),
    "no payload": {"key": "bad", "action_type": "x"},
    "a null payload": {"key": "bad", "action_type": "x", "payload": None},
    "a list as a payload": action("bad", payload=[1]),
    "a text as a payload": action("bad", payload="{}"),
    "NUL in the payload": action("bad", payload={"a": ["\x00"]}),
    "NUL in a key of the payload": action("bad", payload={"a": {"x\\\x00": 1}}),
    "a lone surrogate in the payload": action("bad", payload={"a": "\ud800"}),
    "a lone surrogate in a key of the payload": action("bad", payload={"\udc00": 1}),
    "a number that is none": action("bad", payload={"a": float("nan")}),
    "a number too large": action("bad", payload={"a": float("inf")}),
    "a large payload": action("bad", payload={"a": "x" * (64 << 10)}),
    "a large payload of wide characters": action("bad", payload={"a": "ü" * (32 << 10)}),
    "a payload of numbers that PostgreSQL writes out": action("bad", payload={"a": [1e308] * 250}),
    "a payload too deep": action("bad", payload=json.loads('{"a":' * 201 + "1" + "}" * 201)),
    "a key nobody knows": {**action("bad"), "id": 5},
}


@pytest.mark.parametrize("item", INVALID.values(), ids=INVALID.keys())
async def test_a_bad_item_is_invalid_and_the_others_are_taken(
    server: Server, host: asyncpg.Connection, item: Any
) -> None:
    """With a reason, and the key where it can be told again."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")

    results = await upload(server, user, f"phone {user}", action("before"), item, action("after"))

    assert statuses(results) == ["accepted", "invalid", "accepted"]
    assert results[1]["reason"]
    assert results[1]["key"] in {None, "bad"}
    assert [row["key"] for row in await host.fetch(ROWS, user)] == ["before", "after"]


async def test_what_is_just_within_the_limits_is_taken_and_given(
    server: Server, host: asyncpg.Connection
) -> None:
    """Characters are counted and not bytes, except in the payload; text that looks like an escape is none."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    await register(server, user, f"other {user}", "ios")
    key, name = "🜁" * 255, "🜂" * 50
    payloads = [
        {"a": "x" * ((64 << 10) - len('{"a":""}'))},
        json.loads('{"a":' * 200 + "1" + "}" * 200),
        {"\\u0000": "\\\\u0000", "n": [10**300, -1.5e20, 5e-324, True, None, {}], "": "\x01\u2028"},
    ]

    results = await upload(
        server,
        user,
        f"phone {user}",
        action(key, name),
        *(action(f"{number}", payload=payload) for number, payload in enumerate(payloads)),
    )
    answer = await sync(server, user, device_token=f"other {user}")

    assert statuses(results) == ["accepted"] * 4
    assert results[0]["key"] == key
    assert answer["messages"][0]["data"]["action_type"] == name
    assert [message["data"]["payload"] for message in answer["messages"][1:]] == payloads


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"user_id": "ada", "actions": []},
        {"user_id": "ada", "device_token": "t"},
        {"user_id": "ada", "device_token": "t", "actions": {}},
        {"user_id": "ada", "device_token": "t", "actions": [action(str(number)) for number in range(101)]},
        {"user_id": "ada", "device_token": "t\ud800", "actions": []},
        {"user_id": "ada", "device_token": "t", "actions": [], "x": 1},
    ],
)
async def test_a_wrong_upload_is_422(server: Server, body: Any) -> None:
    """As a whole: nobody can say whose it is, or it is too much."""
    answer = await server.request(
        "POST", SYNC, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert (answer.json()["code"], bool(answer.json()["problems"])) == ("malformed", True)


@pytest.mark.parametrize("path", [SYNC, f"{SYNC}/ack"])
@pytest.mark.parametrize("body", ["", "{", "[" * 30_000, "9" * 5000, '{"user_id": "\xff"}'])
async def test_a_body_that_is_no_json_is_refused(server: Server, path: str, body: str) -> None:
    """Or such as Python cannot hold; never an error of ours."""
    answer = await server.request(
        "POST", path, content=body.encode("latin-1"), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in {400, 422}


@pytest.mark.parametrize("path", [SYNC, f"{SYNC}/ack", "/realtime/devices"])
async def test_a_body_that_is_too_large_is_413(server: Server, path: str) -> None:
    """Also one that does not say how large it is; the process takes no more of it than the limit."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b" " * (1 << 17)

    for content in (b" " * (9 << 17), chunks()):
        answer = await server.request(
            "POST", path, content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413
        assert answer.json()["code"] == "too_large"


@pytest.mark.parametrize(
    ("count", "size"), [(100, 10_000), (15, (64 << 10) - len('{"a":""}'))], ids=["as many", "as large"]
)
async def test_the_largest_uploads_fit(
    server: Server, host: asyncpg.Connection, count: int, size: int
) -> None:
    """As many actions as may be, and as many of the largest payload as a body has room for."""
    user = await app.add_user(host)
    await register(server, user, f"phone {user}", "ios")
    payload = {"a": "x" * size}

    results = await upload(
        server, user, f"phone {user}", *(action(f"{number}", payload=payload) for number in range(count))
    )

    assert statuses(results) == ["accepted"] * count

"""What nobody may read in a log, whoever writes it and however much it was told to say."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from websockets.exceptions import InvalidStatus

from app.auth.credentials import COOKIE
from tests.e2e.conftest import Connect, Listen, aside
from tests.support import host as app
from tests.support import issuer, stream
from tests.support.client import open_client, raw_client, target
from tests.support.postgres import Database
from tests.support.roles import as_service
from tests.support.server import Server

EVERYTHING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"all": {"format": "%(levelname)s %(name)s %(message)s"}},
    "handlers": {"all": {"class": "logging.StreamHandler", "formatter": "all", "level": 1}},
    "root": {"level": 1, "handlers": ["all"]},
    # It has a level of its own unless told otherwise.
    "loggers": {"sqlalchemy": {"level": 1}},
}
"""Every logger of every library, at every level."""


class Marks:
    """Texts that are found wherever they are written, each with what it stands for."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def __getitem__(self, what: str) -> str:
        return self.texts.setdefault(what, f"mark{secrets.token_hex(8)}")

    def jwt(self, what: str) -> str:
        """One that looks like a JWT, and is none."""
        return f"eyJhbGciOiJIUzI1NiJ9.{self[what]}.c2lnbmF0dXJl"

    def found_in(self, text: str) -> dict[str, str]:
        """What stands in a text, each with the first line where it does."""
        lines = text.splitlines()
        return {
            what: next(line for line in lines if mark in line)
            for what, mark in self.texts.items()
            if mark in text
        }


@pytest.fixture
def marks() -> Marks:
    return Marks()


@pytest.fixture(scope="module", params=["plain", "trace", "everything"])
def talkative(request: pytest.FixtureRequest, house: Database, tmp_path_factory: Any) -> Iterator[Server]:
    """As it is started by hand; at uvicorn's lowest level; with every library's loggers, and asyncio's debug mode."""
    file: Path = tmp_path_factory.mktemp("log") / "log.json"
    file.write_text(json.dumps(EVERYTHING))
    arguments = {"plain": (), "trace": ("--log-level", "trace"), "everything": ("--log-config", str(file))}
    settings = {"pythonasynciodebug": 1} if request.param == "everything" else {}
    server = Server(
        as_service(house),
        *arguments[request.param],
        **settings,
        url_size=3000,
        body_size=20_000,
        stale_after=0.2,
        stale_interval=0.2,
    )
    aside(server.healthy())
    yield server
    server.end()


async def over_websockets(server: Server, host: asyncpg.Connection, marks: Marks, connect: Connect) -> None:
    """Everything a client may send, events with payloads, and positions."""
    user, friend = await app.add_user(host), await app.add_user(host)
    client = await connect(
        server,
        user,
        {
            "X-Device-Token": marks["a header's device token"],
            "Authorization": f"Bearer {marks.jwt('an authorization')}",
            "Cookie": f"{COOKIE}={marks['a cookie']}",
        },
    )
    assert client.messages[0]["type"] == "error"
    device = {"user_id": user, "device_token": marks["a device token"], "platform": "ios"}
    assert (await server.request("POST", "/realtime/devices", json=device)).status_code == 201
    client = await connect(server, user, device_token=marks["a device token"], position="", ack="1")
    marks.texts["a position"] = client.messages[0]["position"]
    await app.publish(host, user, "badge_earned", badge=marks["a payload"])
    await host.execute(
        "INSERT INTO sync_queue (user_id, action_type, payload) VALUES ($1, 'refresh', $2)",
        user,
        json.dumps({"what": marks["a sync row's payload"]}),
    )
    await host.execute(
        "INSERT INTO moods (user_id, score, note, at) VALUES ($1, 1, $2, now())", user, marks["a note"]
    )
    room = await app.create_room(host, user, friend)
    await host.execute(
        "INSERT INTO chat_messages (id, room_id, user_id, content) VALUES ($1, $2, $1, $3)",
        user,
        room,
        marks["a chat message"],
    )
    events = await client.got(4)
    marks.texts["an event's position"] = events[1]["position"]
    for message in (
        {"type": "nack", "seq": 1, "reason": marks["a nack's reason"]},
        {"type": "ack", "seq": 2, "note": marks["an ack's extra"]},
        {"type": "auth", "token": marks.jwt("an auth message")},
        {"type": marks["a type"]},
    ):
        await client.send(json.dumps(message))
    await client.send(marks["rubbish"])
    await client.send(marks["binary"].encode())
    await client.send(marks["too much"] * 10_000)
    await client.ask()
    await client.vanish()
    again = await connect(server, user, position=events[1]["position"])
    await again.got(2)
    await again.close()
    for query in (
        {"user_id": user, "position": marks["a position that is none"]},
        {"user_id": user, "device_token": marks["an unknown device token"]},
        {"user_id": user, "ticket": marks["a ticket"]},
        {"user_id": user, "token": marks.jwt("a query's token")},
        {"user_id": user, "access_token": marks.jwt("a query's access token")},
        {"user_id": user, "x": marks["a long URL"] * 200},
    ):
        with contextlib.suppress(InvalidStatus):
            await (await open_client(server.address, **query)).vanish()
    async with raw_client(server.address) as raw:
        await raw.handshake(
            target(user_id=user),
            f"Sec-WebSocket-Protocol: mindvibe.v1, bearer.{marks.jwt('a subprotocol')}",
        )
    async with raw_client(server.address) as raw:
        await raw.handshake(target(ticket=marks["an endless ticket"] * 1000))
    async with raw_client(server.address) as raw:
        await raw.handshake("/elsewhere?ticket=" + marks["a ticket elsewhere"])


async def over_http(server: Server, host: asyncpg.Connection, marks: Marks, listen: Listen) -> None:
    """Streams, devices, sync, what is malformed, and what is not there."""
    user = await app.add_user(host)
    token = {"user_id": user, "device_token": marks["a phone's token"]}
    stream = await listen(server, user, {"Last-Event-ID": marks["a last event id"]}, device_token="")
    await stream.vanish()
    stream = await listen(server, user, {"Authorization": f"Bearer {marks.jwt('a stream')}"})
    await app.publish(host, user, "badge_earned", badge=marks["a streamed payload"])
    if stream.status == 200:
        await stream.got(1)
        marks.texts["a stream's position"] = stream.positions[-1]
    await stream.vanish()

    async with server.http() as client:
        headers = {
            "Authorization": f"Bearer {marks.jwt('a request')}",
            "Cookie": f"{COOKIE}={marks['a request cookie']}",
        }
        for body in (
            {**token, "platform": "ios"},
            {
                **token,
                "device_token": marks["a new token"],
                "previous_token": token["device_token"],
                "platform": "ios",
            },
            {**token, "device_token": marks["an odd token"] + "\0", "platform": marks["a platform"]},
            {marks["a key"]: marks["a value"]},
        ):
            await client.post("/realtime/devices", json=body, headers=headers)
        token["device_token"] = marks["a new token"]
        await client.post("/realtime/devices", content=b'{"' + marks["half a body"].encode())
        await client.get("/realtime/devices", params={"user_id": user, "token": marks["a stray token"]})
        action = {"key": "k", "action_type": "t", "payload": {"a": marks["an action's payload"]}}
        bad = {"key": marks["a bad key"] + "\0", "action_type": 1, "payload": marks["a bad payload"]}
        for actions in ([action, bad], marks["no actions"], [marks["a large body"] * 2000]):
            await client.post("/realtime/sync", json={**token, "actions": actions}, headers=headers)
        read = await client.get("/realtime/sync", params={**token, "position": marks["no position"]})
        if read.status_code == 200:
            marks.texts["a next"] = read.json()["next"]
            await client.get("/realtime/sync", params={**token, "position": read.json()["next"], "wait": 0.1})
            await client.post("/realtime/sync/ack", json={**token, "position": read.json()["next"]})
        await client.post(
            "/realtime/sync/ack", json={**token, "position": marks["an ack's position"], "ids": ["x"]}
        )
        await client.get("/realtime/sync", params=token, headers={"X-Device-Token": marks["a sync header"]})
        await client.get(
            "/realtime/dead-letters", params={"user_id": user, "token": marks["an operator's token"]}
        )
        await client.post("/realtime/tickets", headers=headers, json={"token": marks["a ticket's token"]})
        await client.get("/nowhere", params={"token": marks["a token nowhere"]})
        await client.get("/docs", params={"token": marks["a token of docs"]})
        for method in ("PUT", "OPTIONS", "HEAD"):
            await client.request(method, "/realtime/devices", params={"token": marks[f"a {method}'s token"]})
    for request in (
        b"GET /realtime/ready?t=%b HTTP/1.1\r\nHost: x\r\nAuthorization: %b\x00\r\n\r\n",
        b"GET /realtime/ready?t=%b HTTP/9.9\r\nHost: %b\r\n\r\n",
        b"GET /%b\x01 %b\r\n\r\n",
    ):
        async with raw_client(server.address) as raw:
            raw.send_bytes(request % (marks["a broken URL"].encode(), marks["a broken head"].encode()))
            await raw.read_to_end()


async def while_it_breaks(server: Server, host: asyncpg.Connection, house: Database, marks: Marks) -> None:
    """What is written down when a statement fails, and when the database is gone in the middle."""
    user = await app.add_user(host)
    body = {"user_id": user, "device_token": marks["a token that broke"], "platform": "ios"}
    asked = {"user_id": user, "device_token": marks["a token that broke"]}
    upload = [{"key": "k", "action_type": "t", "payload": {"a": marks["a payload that broke"]}}]
    await host.execute("ALTER TABLE users_devices RENAME TO away")
    answers = [
        await server.request("POST", "/realtime/devices", json=body),
        await server.request("GET", "/realtime/sync", params=asked),
    ]
    with contextlib.suppress(InvalidStatus):
        await (await open_client(server.address, **asked)).vanish()
    await host.execute("ALTER TABLE away RENAME TO users_devices")
    await server.request("POST", "/realtime/devices", json=body)
    await host.execute("ALTER TABLE sync_queue ADD CONSTRAINT never CHECK (action_type <> 't') NOT VALID")
    answers.append(await server.request("POST", "/realtime/sync", json={**asked, "actions": upload}))
    await host.execute("ALTER TABLE sync_queue DROP CONSTRAINT never")
    await host.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'mindvibe-realtime' AND datname = $1",
        house.name,
    )
    answers.append(await server.request("POST", "/realtime/sync", json={**asked, "actions": upload}))

    assert [answer.status_code for answer in answers[:3]] == [500, 500, 500]
    for answer in answers:
        said = answer.text.lower()
        assert not [
            word
            for word in ("traceback", "sql", "asyncpg", "users_devices", "file ", "postgres")
            if word in said
        ]
        assert marks.found_in(answer.text) == {}


async def test_no_secret_is_ever_printed(
    talkative: Server,
    house: Database,
    host: asyncpg.Connection,
    marks: Marks,
    connect: Connect,
    listen: Listen,
) -> None:
    """Tokens, tickets, positions, payloads and private text, on every way in, right, wrong and when all breaks."""
    await over_websockets(talkative, host, marks, connect)
    await over_http(talkative, host, marks, listen)
    await while_it_breaks(talkative, host, house, marks)
    await talkative.healthy()
    health = await talkative.health()
    await asyncio.to_thread(talkative.send_signal)
    await talkative.ended()

    log = talkative.log
    assert "/realtime/ws" in log, "it did log"
    assert len(marks.texts) > 50
    assert "<exception str() failed>" not in log
    assert marks.found_in(log) == {}
    assert "Row (" not in log, "positions are columns too"
    assert marks.found_in(json.dumps(health)) == {}


async def test_the_description_of_the_endpoints_has_no_example_that_could_be_taken_for_a_secret(
    server: Server,
) -> None:
    """Names of fields, not values of them."""
    described = (await server.get("/openapi.json")).json()
    examples: list[Any] = []

    def collect(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key in ("example", "examples", "default"):
                examples.append(value)
            if isinstance(value, dict | list):
                collect(value)

    collect(described)

    assert examples
    for word in ("token", "ticket", "position", "eyJ", "secret"):
        assert word not in json.dumps(examples), word


async def test_no_token_that_is_good_or_nearly_so_is_ever_printed(
    house: Database, host: asyncpg.Connection, marks: Marks, tmp_path: Path
) -> None:
    """Of users and of operators, in every way to give one; tickets, cookies, and what they are signed with."""
    file = tmp_path / "log.json"
    file.write_text(json.dumps(EVERYTHING))
    secret, office = marks["the issuer's secret"] * 2, marks["the operators' token"] * 2
    server = Server(
        as_service(house),
        "--log-config",
        str(file),
        pythonasynciodebug=1,
        jwt_secret=secret,
        service_token=office,
    )
    user = await app.add_user(host)
    try:
        await server.healthy()
        for what, jwt in {
            "a good token": issuer.token(user, key=secret),
            "an old token": issuer.token(user, key=secret, exp=1),
            "a forged token": issuer.token(user, key=issuer.OTHER_SECRET),
            "somebody else's": issuer.token("somebody", key=secret),
            "rubbish for a token": marks.jwt("rubbish inside a token"),
        }.items():
            marks.texts[what] = jwt
            marks.texts[f"the claims of {what}"] = jwt.split(".")[1]
            bearer = {"Authorization": f"Bearer {jwt}"}
            ticket = await server.request("POST", "/realtime/tickets", headers=bearer)
            cookie = await server.request(
                "POST", "/realtime/tickets", params={"as": "cookie"}, headers=bearer
            )
            if ticket.status_code == 201:
                marks.texts["a ticket"] = ticket.json()["ticket"]
                marks.texts["a cookie"] = cookie.cookies[COOKIE]
                for _ in range(2):
                    await (await open_client(server.address, ticket=marks["a ticket"])).vanish()
            for headers in (bearer, {"Cookie": f"{COOKIE}={marks['a cookie']}"}, {"X-Token": jwt}):
                one = await stream.request(server.address, f"{stream.PATH}?user_id={user}", headers=headers)
                await one.until(lambda this: this.messages or this.ended)
                await one.vanish()
                await server.request("GET", "/realtime/sync", headers=headers, params={"user_id": user})
                await server.request("GET", "/realtime/dead-letters", headers=headers)
            client = await open_client(server.address, subprotocols=("mindvibe.v1", f"bearer.{jwt}"))
            await client.until(lambda this: this.messages)
            if client.messages[0]["type"] == "connected":
                await client.send(json.dumps({"type": "auth", "token": jwt}))
                await client.send(json.dumps({"type": "auth", "token": marks["no token"]}))
                await client.until(lambda this: len(this.messages) == 3)
            await client.vanish()
            for name in ("token", "jwt", "access_token", "ticket"):
                await (await open_client(server.address, user_id=user, **{name: jwt})).vanish()
        await server.request("GET", "/realtime/dead-letters", headers={"Authorization": f"Bearer {office}"})
        await host.execute("ALTER TABLE realtime_tickets RENAME TO away")
        broken = await server.request(
            "POST", "/realtime/tickets", headers={"Authorization": f"Bearer {marks['a good token']}"}
        )
        with contextlib.suppress(InvalidStatus):
            await (await open_client(server.address, ticket=marks["a ticket"])).vanish()
        await host.execute("ALTER TABLE away RENAME TO realtime_tickets")
        health = await server.health()
        server.send_signal()
        await server.ended()
        log = server.log
    finally:
        server.end()

    assert broken.status_code == 500
    assert marks.found_in(broken.text + json.dumps(health)) == {}
    assert len(marks.texts) > 14
    assert "Traceback" in log, "what broke is written down"
    assert marks.found_in(log) == {}

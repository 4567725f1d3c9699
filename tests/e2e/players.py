"""Those who play the examples of docs/protocol.md against a real server, one for each kind of example."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from app.settings import Settings
from tests.e2e.protocol import Example, Step, Values
from tests.support import host as app
from tests.support import issuer
from tests.support.client import Client, target
from tests.support.server import PATIENCE, Server

END = "the end of the example"
_HEADER = re.compile(r"([A-Za-z-]+): (.*)")
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


class Player:
    """Plays the steps of an example; subclasses know the transport."""

    def __init__(self, server: Server, host: asyncpg.Connection, stack: AsyncExitStack) -> None:
        self.server = server
        self.host = host
        self.stack = stack
        self.values = Values()
        self.beside: HttpPlayer | None = None

    async def play(self, example: Example) -> None:
        """Play an example to its end."""
        await app.add_user(self.host, self.values.user)
        for name in ("<token>", "<token 2>"):
            self.values.bound[name] = issuer.token(self.values.user)
        steps = example.steps
        while steps:
            first = steps.pop(0)
            match first.who:
                case "#":
                    await self.happens(first.text)
                case ">":
                    await self.says(first.text, steps)
                case _:
                    await self.hears(first.text)
        await self.finish()

    async def says(self, text: str, rest: list[Step]) -> None:
        """Say something as the client; what else belongs to it is taken from `rest`."""
        raise NotImplementedError

    async def hears(self, text: str) -> None:
        """Check the next thing that the server says."""
        raise NotImplementedError

    async def finish(self) -> None:
        """Check that nothing more was said."""

    def headers(self, rest: list[Step]) -> dict[str, str]:
        """The headers of a request, which are taken from `rest`."""
        headers = {}
        while rest[0].who == ">" and (header := _HEADER.fullmatch(self.values.spoken(rest[0].text))):
            headers[header[1]] = header[2]
            rest.pop(0)
        return headers

    async def asks_beside(self, text: str, rest: list[Step]) -> bool:
        """Whether this is a request of its own, beside a connection; then it was made."""
        if not text.startswith("POST "):
            return False
        await self.finish()
        self.beside = HttpPlayer(self.server, self.host, self.stack)
        self.beside.values = self.values
        await self.beside.says(text, rest)
        return True

    async def happens(self, text: str) -> None:
        """Let happen what the example says."""
        happening = self._happenings().get(text)
        if happening is not None:
            await happening()
            return
        count, _, rest = text.partition(" ")
        assert rest == "bad messages more are sent", f"nobody knows how to make happen: {text}"
        for _ in range(int(count)):
            await self.says("hello", [])
            await self.hears('{"type":"error","code":"malformed","message":"<text>"}')

    def _happenings(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        host, user = self.host, self.values.user
        badge = {"badge": "a week of entries"}
        return {
            "a mood is logged": lambda: app.log_mood(host, user),
            "two moods are logged": lambda: app.log_moods(host, [user], 2),
            "a message is posted in a room": self._post_in_a_room,
            "a message is posted outside of rooms": lambda: app.post_message(host, user),
            "a journal entry is written": lambda: app.write_entry(host, user),
            "the application publishes badge_earned": lambda: app.publish(
                host, user, "badge_earned", **badge
            ),
            "a row of sync_queue is written": lambda: app.queue_sync(
                host, user, "refresh", {"what": "rooms"}
            ),
            "a mood is logged that nobody fetches within UNDELIVERED_DAYS": self._expire,
            "the user is deleted": lambda: app.delete_user(host, user),
            "the device phone-1 is registered": self._register,
            "the device phone-1 connects once more": lambda: self.connect(self._of_phone()),
            "the user has CONNECTIONS_PER_USER connections": self._crowd,
            "the process is told to stop": self._stop,
            "NACK_PAUSE passes": _nothing,
            "ACK_TIMEOUT passes": _nothing,
        }

    async def connect(self, path: str, headers: dict[str, str] | None = None) -> Client:
        """Open a WebSocket that is gone when the example has been played."""
        headers = dict(headers or {})
        offered = headers.pop("Sec-WebSocket-Protocol", None)
        connection = await connect(
            f"ws://{self.server.address[0]}:{self.server.port}{path}",
            additional_headers=headers,
            subprotocols=[Subprotocol(one) for one in offered.split(", ")] if offered else None,
            proxy=None,
            compression=None,
            open_timeout=PATIENCE,
            ping_interval=None,
        )
        client = Client(connection)
        self.stack.push_async_callback(client.vanish)
        return client

    def _of_phone(self) -> str:
        return target(user_id=self.values.user, device_token=self.values.fill("phone-1"))

    async def _register(self) -> None:
        body = {"user_id": self.values.user, "device_token": self.values.fill("phone-1"), "platform": "ios"}
        assert (await self.server.request("POST", "/realtime/devices", json=body)).status_code == 201

    async def _expire(self) -> None:
        user = self.values.user
        await app.log_mood(self.host, user)
        age = f"{DEFAULTS['undelivered_days'] + 1} days"
        await self.host.execute(
            "UPDATE realtime_events SET created_at = now() - $2::text::interval WHERE user_id = $1", user, age
        )
        is_dead = "SELECT EXISTS (SELECT FROM realtime_dead_letters WHERE user_id = $1)"
        async with asyncio.timeout(PATIENCE):
            while not await self.host.fetchval(is_dead, user):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.03)

    async def _post_in_a_room(self) -> None:
        room = await app.create_room(self.host, self.values.user)
        await app.post_message(self.host, self.values.user, room)

    async def _crowd(self) -> None:
        for _ in range(DEFAULTS["connections_per_user"]):
            one = await self.connect(target(user_id=self.values.user))
            await one.until(lambda client: client.messages)

    async def _stop(self) -> None:
        self.server.send_signal()


class WebSocketPlayer(Player):
    """Plays `ws`; `> GET` connects, anything else is sent as text."""

    client: Client | None = None
    refused: int | None = None
    heard = 0
    end_heard = False

    async def says(self, text: str, rest: list[Step]) -> None:
        if await self.asks_beside(text, rest):
            return
        words = self.values.spoken(text)
        if words.startswith("GET "):
            await self.finish()
            self.client, self.heard, self.end_heard = None, 0, False
            try:
                self.client = await self.connect(words.removeprefix("GET "), self.headers(rest))
            except InvalidStatus as error:
                self.refused = error.response.status_code
            return
        assert self.client is not None
        match words:
            case "vanish":
                await self.client.vanish()
                self.end_heard = True
            case "binary":
                await self.client.send(b"bytes")
            case "a text longer than MESSAGE_SIZE":
                await self.client.send("x" * (DEFAULTS["message_size"] + 1))
            case _:
                await self.client.send(words)

    async def hears(self, text: str) -> None:
        if self.beside is not None and not self.beside.is_done:
            await self.beside.hears(text)
            return
        if text.startswith("refused "):
            assert text == f"refused {self.refused}"
            self.end_heard = True
            return
        assert self.client is not None, f"refused with {self.refused}"
        if text.startswith("Sec-WebSocket-Protocol: "):
            assert text == f"Sec-WebSocket-Protocol: {self.client.subprotocol}"
            return
        if text.startswith("close "):
            assert f"close {await self.client.ended()}" == text
            assert self.client.messages[self.heard :] == []
            self.end_heard = True
            return
        await self.client.until(lambda client: len(client.frames) > self.heard)
        self.heard += 1
        self.values.check_json(text, self.client.frames[self.heard - 1])

    async def finish(self) -> None:
        if self.end_heard or (self.client is None and self.refused is None):
            return
        assert self.client is not None, f"nobody heard that it was refused with {self.refused}"
        await app.publish(self.host, self.values.user, END)
        await self.client.until(lambda client: client.messages[-1]["type"] == END)
        assert [one["type"] for one in self.client.messages[self.heard :]] == [END]


class HttpPlayer(Player):
    """Plays `http`: a request with its body, a status and the body that came with it."""

    answer: httpx2.Response | None = None

    @property
    def is_done(self) -> bool:
        """Whether the answer was heard to its end."""
        assert self.answer is not None
        return self.status_heard and (self.body_heard or not self.answer.content)

    async def says(self, text: str, rest: list[Step]) -> None:
        await self.finish()
        method, path = self.values.spoken(text).split(" ", 1)
        headers, body = self.headers(rest), None
        if rest[0].who == ">":
            body = self.values.spoken(rest.pop(0).text).encode()
            json.loads(body)
            headers["Content-Type"] = "application/json"
        self.answer = await self.server.request(method, path, content=body, headers=headers)
        self.status_heard = self.body_heard = False

    async def hears(self, text: str) -> None:
        assert self.answer is not None
        if not self.status_heard:
            assert self.answer.status_code == int(text), self.answer.text
            self.status_heard = True
        elif header := _HEADER.fullmatch(text):
            self.values.check_text(header[2], self.answer.headers[header[1]])
        else:
            self.values.check_json(text, self.answer.content)
            self.body_heard = True

    async def finish(self) -> None:
        if self.answer is not None:
            assert self.body_heard or not self.answer.content, self.answer.text


class StreamPlayer(Player):
    """Plays `sse`: the lines of a stream, in blocks, or the status and body of an answer that is none."""

    answer: httpx2.Response | None = None
    lines: AsyncIterator[str] | None = None
    status_heard = end_heard = True

    async def says(self, text: str, rest: list[Step]) -> None:
        if await self.asks_beside(text, rest):
            return
        words = self.values.spoken(text)
        if words == "vanish":
            assert self.answer is not None
            await self.answer.aclose()
            self.end_heard = True
            return
        await self.finish()
        headers = {"Accept": "text/event-stream"} | self.headers(rest)
        client = await self.stack.enter_async_context(self.server.http())
        request = client.build_request("GET", words.removeprefix("GET "), headers=headers)
        self.answer = await client.send(request, stream=True)
        self.stack.push_async_callback(self.answer.aclose)
        self.lines = None
        self.status_heard = self.end_heard = False

    async def hears(self, text: str) -> None:
        if self.beside is not None and not self.beside.is_done:
            await self.beside.hears(text)
            return
        assert self.answer is not None
        if not self.status_heard:
            assert self.answer.status_code == int(text)
            self.status_heard = True
            self.end_heard = self.answer.status_code == 204
        elif text.startswith("content-type: "):
            assert text == f"content-type: {self.answer.headers['content-type']}"
        elif self.answer.headers["content-type"] == "application/json":
            self.values.check_json(text, await self.answer.aread())
            self.end_heard = True
        elif text == "end":
            async with asyncio.timeout(PATIENCE):
                assert await anext(self._lines(), None) is None
            self.end_heard = True
        else:
            await self._hears_line(text)

    async def _hears_line(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE):
            line = await anext(self._lines())
        if text.startswith("data: "):
            assert line.startswith("data: "), line
            self.values.check_json(text.removeprefix("data: "), line.removeprefix("data: "))
        else:
            self.values.check_text(text, line)

    async def finish(self) -> None:
        if self.end_heard:
            return
        assert self.status_heard
        await app.publish(self.host, self.values.user, END)
        async with asyncio.timeout(PATIENCE):
            while not (line := await anext(self._lines())).startswith("data: "):
                assert not line or line.startswith((":", "id: ")), f"nobody heard {line!r}"
            assert json.loads(line.removeprefix("data: "))["type"] == END

    def _lines(self) -> AsyncIterator[str]:
        assert self.answer is not None
        if self.lines is None:
            self.lines = _without_bare_comments(self.answer.aiter_lines())
        return self.lines


async def _without_bare_comments(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """A comment without an id may come at any time."""
    block: list[str] = []
    async for line in lines:
        block.append(line)
        if not line:
            if block != [":", ""]:
                for each in block:
                    yield each
            block = []


async def _nothing() -> None:
    pass


PLAYERS: dict[str, type[Player]] = {"ws": WebSocketPlayer, "http": HttpPlayer, "sse": StreamPlayer}

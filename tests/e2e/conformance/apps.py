"""One app of a user on each transport, driven in the same words by every scenario.

An app outlives its connections: it keeps what it has processed, and whatever its transport has for going on
where it was. It can stall, vanish without a close, close, and come back to the same or another process.
"""

import asyncio
import contextlib
import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from urllib.parse import urlencode

import httpx2
from websockets.exceptions import WebSocketException

from tests.support import stream
from tests.support.client import Address, Client, open_client
from tests.support.inbox import Event, Inbox
from tests.support.server import PATIENCE, WITHOUT_TLS
from tests.support.service import Received

OF_THE_TRANSPORT = {"seq", "redelivered", "position"}
"""Keys that a client gets who asked for them."""
WINDOW = 32
"""Messages in flight, in the services of these scenarios."""


class Gone(Exception):  # noqa: N818 - what a transport does, not a mistake
    """The connection has ended, or could not be made."""


class App(ABC):
    """What a user runs; `device_token` where it is registered."""

    name: ClassVar[str]
    repeats_at_most: ClassVar[int] = 0
    """Messages that may come twice when it vanishes; who says what it has gets none."""

    def __init__(self, user: str, device_token: str | None = None, *, seed: int = 0) -> None:
        self.user = user
        self.who = {"user_id": user} | ({} if device_token is None else {"device_token": device_token})
        self.rng = random.Random(seed)
        self.processed: list[Received] = []
        self.cuts = 0

    # ---- what a transport does

    @abstractmethod
    async def connect(self, address: Address) -> None:
        """Connect, and go on where it was; raises Gone."""

    @abstractmethod
    async def next(self) -> Event:
        """Wait for the next event or sync row; raises Gone."""

    async def done(self, event: Event) -> None:  # noqa: B027 - most have nothing to say
        """Tell that a message is processed, where the transport can."""

    @abstractmethod
    async def barrier(self) -> None:
        """Return when nothing that was sent before is on its way any more."""

    @abstractmethod
    def has_more(self) -> bool:
        """Whether a message is here already."""

    def stall(self) -> None:  # noqa: B027 - who asks for each answer stalls by not asking
        """Read nothing more."""

    def go_on(self) -> None:  # noqa: B027
        """Read again."""

    @abstractmethod
    async def vanish(self) -> None:
        """Leave by a reset, with whatever is on its way."""

    @abstractmethod
    async def close(self) -> None:
        """Leave politely."""

    # ---- what every app does

    @property
    def ids(self) -> list[int]:
        """Ids of what it has processed, in order, twice what came twice."""
        return [received.id for received in self.processed]

    @property
    def once(self) -> list[Received]:
        """What it has processed, in order, without what came again."""
        first: dict[int, Received] = {}
        for received in self.processed:
            first.setdefault(received.id, received)
        return list(first.values())

    @property
    def got(self) -> list[Event]:
        """The messages that it has processed, each once."""
        return [received.body for received in self.once]

    @property
    def repeated(self) -> int:
        """How many messages came again."""
        return len(self.processed) - len(set(self.ids))

    async def take(self) -> Received:
        """Process the next message; raises Gone."""
        event = await self.next()
        body = {key: value for key, value in event.items() if key not in OF_THE_TRANSPORT}
        self.processed.append(Received(body, time.monotonic()))
        await self.done(event)
        return self.processed[-1]

    async def take_until(self, met: Callable[[], object]) -> None:
        """Process messages until something is true; raises Gone."""
        async with asyncio.timeout(PATIENCE):
            while not met():
                await self.take()

    async def get(self, count: int) -> list[Event]:
        """Process so many new messages; return all that it has processed, each once."""
        wanted = len(self.once) + count
        await self.take_until(lambda: len(self.once) == wanted)
        return self.got

    async def finish(self) -> None:
        """Process what is still on its way."""
        await self.barrier()
        while self.has_more():
            await self.take()

    async def come_back(self, address: Address) -> None:
        """Connect, again and again while nobody is there."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(Gone):
                    await self.connect(address)
                    return
                await asyncio.sleep(0.05)

    async def drop(self) -> None:
        """Vanish, and count it."""
        self.cuts += 1
        await self.vanish()


class _Pushed(App):
    """An app to which messages come by themselves."""

    def __init__(self, user: str, device_token: str | None = None, *, seed: int = 0) -> None:
        super().__init__(user, device_token, seed=seed)
        self._coming: Iterator[Event] = iter(())
        self._inbox: Inbox | None = None
        self._taken = 0

    def _begin(self, inbox: Inbox) -> None:
        self._inbox, self._taken = inbox, 0

    @property
    def inbox(self) -> Inbox:
        assert self._inbox is not None
        return self._inbox

    def has_more(self) -> bool:
        self._pass_over_control()
        return self._taken < len(self.inbox.messages)

    async def next(self) -> Event:
        await self._until(self.has_more)
        if not self.has_more():
            raise Gone(str(self.inbox.end))
        self._taken += 1
        return self.inbox.messages[self._taken - 1]

    async def _until(self, met: Callable[[], object]) -> None:
        with contextlib.suppress(AssertionError):
            await self.inbox.until(lambda inbox: inbox.end is not None or met())

    def _pass_over_control(self) -> None:
        messages = self.inbox.messages
        while self._taken < len(messages) and "id" not in messages[self._taken]:
            self._taken += 1


class Plain(_Pushed):
    """A WebSocket client that asks for nothing; what has come to it is confirmed, and so it is processed."""

    name = "websocket"
    repeats_at_most = WINDOW
    processes_all_that_came: ClassVar[bool] = True

    @property
    def wishes(self) -> dict[str, str]:
        """What it asks for."""
        return {}

    @property
    def client(self) -> Client:
        assert isinstance(self.inbox, Client)
        return self.inbox

    async def connect(self, address: Address) -> None:
        try:
            client = await open_client(address, None, **self.who, **self.wishes)
        except (OSError, WebSocketException, EOFError, TimeoutError) as error:
            raise Gone(str(error)) from error
        self._begin(client)
        await self._until(lambda: client.messages)
        if not client.messages:
            raise Gone(str(client.end))

    async def barrier(self) -> None:
        await self.client.ask()

    def stall(self) -> None:
        self.client._connection.transport.pause_reading()

    def go_on(self) -> None:
        self.client._connection.transport.resume_reading()

    async def vanish(self) -> None:
        await self.client.vanish()
        while self.processes_all_that_came and self.has_more():
            await self.take()

    async def close(self) -> None:
        await self.client.close()


class Placed(Plain):
    """A WebSocket client that keeps its position."""

    name = "websocket with positions"
    repeats_at_most = 0
    processes_all_that_came = False

    def __init__(self, user: str, device_token: str | None = None, *, seed: int = 0) -> None:
        super().__init__(user, device_token, seed=seed)
        self._position = ""

    @property
    def wishes(self) -> dict[str, str]:
        return {"position": self._position}

    async def connect(self, address: Address) -> None:
        await super().connect(address)
        connected = self.inbox.messages[0]
        if self._position:
            assert (connected["resumed"], connected["position"]) == (True, self._position)
        self._position = connected["position"]

    async def done(self, event: Event) -> None:
        self._position = event["position"]


class Acking(Plain):
    """A WebSocket client that acknowledges: at once, late or twice, as it happens.

    What it says just before it vanishes may not come to the server.
    """

    name = "websocket with acks"
    processes_all_that_came = False

    def __init__(self, user: str, device_token: str | None = None, *, seed: int = 0) -> None:
        super().__init__(user, device_token, seed=seed)
        self._last = 0

    @property
    def wishes(self) -> dict[str, str]:
        return {"ack": "1"}

    async def connect(self, address: Address) -> None:
        self._last = 0
        await super().connect(address)

    async def done(self, event: Event) -> None:
        assert event["seq"] == self._last + 1
        self._last = event["seq"]
        if not self.has_more() or self.rng.random() < 0.5:
            await self._say("ack", self._last)
            if self._last % WINDOW == 0:
                await self._say("ack", self._last)

    async def barrier(self) -> None:
        await self._say("ack", self._last)
        await super().barrier()

    async def _say(self, kind: str, seq: int) -> None:
        # Whoever is cut off says it to nobody.
        with contextlib.suppress(WebSocketException):
            await self.client.send(json.dumps({"type": kind, "seq": seq}))


class Refusing(Acking):
    """One that cannot process some messages when they first come, and processes them later."""

    name = "websocket with nacks"

    def __init__(self, user: str, device_token: str | None = None, *, seed: int = 0) -> None:
        super().__init__(user, device_token, seed=seed)
        self.refused: list[int] = []
        self.back: set[int] = set()

    async def next(self) -> Event:
        while True:
            event = await super().next()
            if event["id"] in self.refused:
                assert event["redelivered"] or self.cuts, "only what it said before a cut may not have come"
                self.back.add(event["id"])
            elif self.rng.random() < 0.1:
                self.refused.append(event["id"])
                self._last = event["seq"]
                await self._say("nack", event["seq"])
                if not self.has_more():
                    await self._say("ack", event["seq"])
                continue
            return event


class Careful(Refusing):
    """One that keeps its position as well, as docs/protocol.md says: of before what it refused on a connection."""

    name = "websocket with nacks and positions"
    repeats_at_most = WINDOW

    def __init__(self, user: str, device_token: str | None = None, *, seed: int = 0) -> None:
        super().__init__(user, device_token, seed=seed)
        self._position = ""
        self._refused_before = 0

    @property
    def wishes(self) -> dict[str, str]:
        return super().wishes | {"position": self._position}

    async def connect(self, address: Address) -> None:
        await super().connect(address)
        connected = self.inbox.messages[0]
        if self._position:
            assert (connected["resumed"], connected["position"]) == (True, self._position)
        self._position = connected["position"]
        self._refused_before = len(self.refused)

    async def done(self, event: Event) -> None:
        await super().done(event)
        if len(self.refused) == self._refused_before:
            self._position = event["position"]


class Streaming(_Pushed):
    """Server-Sent Events, taken as a browser takes them."""

    name = "server-sent events"

    def __init__(self, user: str, device_token: str | None = None, *, seed: int = 0) -> None:
        super().__init__(user, device_token, seed=seed)
        self._last_event_id = ""

    @property
    def stream(self) -> stream.Stream:
        assert isinstance(self.inbox, stream.Stream)
        return self.inbox

    async def connect(self, address: Address) -> None:
        headers = {"Last-Event-ID": self._last_event_id} if self._last_event_id else None
        path = f"{stream.PATH}?{urlencode(self.who)}"
        try:
            self._begin(await stream.request(address, path, headers=headers, receive_buffer=1 << 16))
        except OSError as error:
            raise Gone(str(error)) from error
        await self._until(lambda: self.inbox.messages)
        if not self.inbox.messages:
            raise Gone(str(self.inbox.end))
        self._last_event_id = self._last_event_id or self.stream.positions[0]

    async def done(self, event: Event) -> None:
        self._last_event_id = self.stream.positions[self._taken - 1]

    async def barrier(self) -> None:
        await self.stream.next_comment()

    def stall(self) -> None:
        self.stream.pause()

    def go_on(self) -> None:
        self.stream.resume()

    async def vanish(self) -> None:
        await self.stream.vanish()

    async def close(self) -> None:
        await self.stream.vanish()


class Syncing(App):
    """HTTP sync: asks for what is new, waits for it, and keeps the position of what it has processed."""

    name = "http sync"

    def __init__(self, user: str, device_token: str | None = None, *, seed: int = 0) -> None:
        super().__init__(user, device_token, seed=seed)
        self._http: httpx2.AsyncClient | None = None
        self._answer: dict[str, Any] = {"messages": []}
        self._taken = 0
        self._position = ""

    async def connect(self, address: Address) -> None:
        if self._http is not None:
            await self._http.aclose()
        self._http = httpx2.AsyncClient(
            base_url="http://{}:{}".format(*address), timeout=PATIENCE, trust_env=False, verify=WITHOUT_TLS
        )
        if not self._position and not self.has_more():  # what it has of an answer it has, connected or not
            await self._ask()

    async def next(self) -> Event:
        async with asyncio.timeout(PATIENCE):
            while not self.has_more():
                await self._ask(wait=25)
        self._taken += 1
        message: Event = self._answer["messages"][self._taken - 1]
        return message

    async def done(self, event: Event) -> None:
        if self.has_more():
            return
        self._position = self._answer["next"]
        if self._http is not None and self.rng.random() < 0.5:
            with contextlib.suppress(httpx2.HTTPError, RuntimeError):
                await self._http.post("/realtime/sync/ack", json=self.who | {"position": self._position})

    async def barrier(self) -> None:
        while self.has_more():
            await self.take()
        await self._ask()

    def has_more(self) -> bool:
        return self._taken < len(self._answer["messages"])

    async def vanish(self) -> None:
        await self.close()

    async def close(self) -> None:
        assert self._http is not None
        await self._http.aclose()

    async def _ask(self, **query: object) -> None:
        assert self._http is not None
        asked = self.who | {name: str(value) for name, value in query.items()} | {"limit": "50"}
        if self._position:
            asked["position"] = self._position
        try:
            answer = await self._http.get("/realtime/sync", params=asked)
        except (httpx2.HTTPError, RuntimeError) as error:
            raise Gone(str(error)) from error
        if answer.status_code != 200:
            raise Gone(answer.text)
        self._answer, self._taken = answer.json(), 0
        if not self._answer["messages"]:
            self._position = self._answer["next"]


TRANSPORTS: tuple[type[App], ...] = (Plain, Placed, Acking, Streaming, Syncing)

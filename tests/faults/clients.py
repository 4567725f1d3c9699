"""Clients that outlive every connection, process what comes, and do as whoever breaks things tells them."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

import httpx2
from websockets.exceptions import WebSocketException

from tests.e2e.conformance.apps import (
    WINDOW,
    Acking,
    App,
    Gone,
    Placed,
    Plain,
    Refusing,
    Streaming,
    Syncing,
)
from tests.faults.history import Copy, Reader
from tests.support.client import Address
from tests.support.inbox import Event

CONNECT_WITHIN = 6.0
"""Seconds after which a client tries another process."""
QUIET = 1.0
"""Seconds of silence after which a client asks whether anybody is there."""
ANSWER_WITHIN = 6.0
"""Seconds after which it gives up waiting for that."""


def key_of(event: Event) -> int:
    """Under which number a host wrote it."""
    data = event["data"]
    match event["type"]:
        case "mood_update":
            return int(data["mood_score"])
        case "chat_message":
            return int(data["message_id"])
        case "journal_update":
            return int(data["entry_id"])
        case "sync":
            return int(data["payload"]["key"])
        case _:
            return int(data["key"])


def whose(event: Event) -> str:
    """To which user it is addressed."""
    data = event["data"]["payload"] if event["type"] == "sync" else event["data"]
    return str(data["user_id"])


class Patient(Placed):
    """Keeps its position; when it is told that it cannot be resumed, it takes that for a gap, and no mistake."""

    gaps = 0

    async def connect(self, address: Address) -> None:
        await Plain.connect(self, address)
        connected = self.inbox.messages[0]
        if "position" not in connected:
            raise Gone(str(connected))
        self.gaps += not connected["resumed"]
        self._position = connected["position"]


class Watchful(Streaming):
    """Notes gaps as well; the first time it is told nothing, since it gave no position."""

    gaps = 0

    async def connect(self, address: Address) -> None:
        await super().connect(address)
        self.gaps += not self.inbox.messages[0].get("resumed", False)


class Punctual(Syncing):
    """Notes gaps, and says what it has processed when nothing more is there; others may keep it to themselves."""

    gaps = 0

    async def _ask(self, **query: object) -> None:
        await super()._ask(**query)
        self.gaps += not self._answer["resumed"]

    async def barrier(self) -> None:
        await super().barrier()
        if self._http is not None and self._position:
            said = self.who | {"position": self._position}
            try:
                await self._http.post("/realtime/sync/ack", json=said)
            except httpx2.HTTPError as error:
                raise Gone(str(error)) from error


KINDS: tuple[type[App], ...] = (Plain, Patient, Acking, Refusing, Watchful, Punctual)


class Client:
    """One reader: an app that follows its user from process to process."""

    def __init__(self, reader: Reader, app: App, address: Callable[[], Address], *, seed: str) -> None:
        self.reader = reader
        self._app = app
        self._address = address
        self._rng = random.Random(seed)
        self._connection = 0
        self._order: Callable[[], Any] | None = None
        self._mute_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._over = False
        self.oddities: list[str] = []
        self._said_done = app.done
        app.done = self._done  # type: ignore[method-assign]

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Leave for good."""
        self._over = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._leave()

    # ---- what it can be told to do

    def vanish(self) -> None:
        """Leave by a reset, and come back."""
        self._order = self._vanish

    def stall(self, seconds: float) -> None:
        """Read nothing for so long; then go on, or vanish."""
        self._order = lambda: self._stall(seconds)

    def fall_mute(self, seconds: float) -> None:
        """Acknowledge nothing for so long."""
        self._mute_until = time.monotonic() + seconds

    # ---- following

    async def _follow(self) -> None:
        while not self._over:
            self._connection += 1
            try:
                async with asyncio.timeout(CONNECT_WITHIN):
                    await self._app.connect(self._address())
                await self._read()
            except (Gone, TimeoutError, WebSocketException) as error:
                self.reader.ended = repr(error)[:300]
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                self.oddities.append(f"{self.reader.name}: {error!r}")
            await self._leave()
            await asyncio.sleep(self._rng.uniform(0.02, 0.3))

    async def _read(self) -> None:
        while True:
            if self._order is not None:
                order, self._order = self._order, None
                await order()
            self._note_gaps()
            try:
                async with asyncio.timeout(QUIET):
                    await self._app.take()
            except TimeoutError:
                await self._ask()

    async def _ask(self) -> None:
        """Ask whether anybody is there; raises Gone."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._app.barrier()
        except AssertionError as error:  # it ended while it was asked
            raise Gone(str(error)) from error

    async def _vanish(self) -> None:
        raise Gone("told to vanish")

    async def _stall(self, seconds: float) -> None:
        self._app.stall()
        await asyncio.sleep(seconds)
        if self._rng.random() < 0.5:
            raise Gone("vanished while it was stalled")
        self._app.go_on()

    async def _leave(self) -> None:
        self.reader.cuts += 1
        self._app.cuts += 1
        self._note_gaps()
        # Its last words may find nobody.
        with contextlib.suppress(Gone, AssertionError, TimeoutError, OSError, WebSocketException):
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._app.vanish()

    def _note_gaps(self) -> None:
        if getattr(self._app, "gaps", 0) > len(self.reader.told):
            self.reader.told.append(time.monotonic())

    async def _done(self, event: Event) -> None:
        """Keep what is processed, before anybody is told."""
        if isinstance(self._app, Refusing):
            self._refusals()
        again = bool(event.get("redelivered", False))
        copy = Copy(key_of(event), whose(event), event["id"], self._connection, time.monotonic(), again)
        self.reader.copies.append(copy)
        if time.monotonic() < self._mute_until and isinstance(self._app, Acking):
            self._app._last = event["seq"]
            return
        await self._said_done(event)

    def _refusals(self) -> None:
        assert isinstance(self._app, Refusing)
        back = self._app.back
        self.reader.refused |= {copy.key for copy in self.reader.copies if copy.row_id in back}


def make(kind: type[App], user: str, token: str | None, *, number: int, seed: int) -> tuple[Reader, App]:
    """An app of a user and the reader that is checked; on a device of its own where there is a token."""
    app = kind(user, token, seed=seed)
    app.cuts = 1  # `Refusing` is strict before the first cut, and a database that restarts is like one
    where = "" if token is None else " on a device"
    reader = Reader(
        f"{kind.name}{where} of {user} ({number})",
        user,
        device=token is not None,
        takes_sync=token is not None,
        resumes=kind in (Patient, Watchful, Punctual),
        hears_again=issubclass(kind, Acking),
    )
    return reader, app


__all__ = ["KINDS", "WINDOW", "Client", "Patient", "key_of", "make", "whose"]

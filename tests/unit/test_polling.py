"""Waiting for what is new: one read for each time somebody says that there may be something."""

import asyncio
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

import pytest

from app.core.messages import Message
from app.core.position import Incarnation, Pass, Position
from app.core.reads import Begun, Page
from app.core.snapshot import Snapshot
from app.core.wishes import NOTHING
from app.store.devices import KnownDevice
from app.sync.polling import Asked, Polling
from app.sync.waiters import Waiters

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ADA = Asked("ada", None, NOTHING, 10)
LONG = 3600.0


class Archive:
    """A table of which every read sees what there is then; `on_read` is called within each."""

    def __init__(self, on_read: Callable[[], None] = lambda: None) -> None:
        self.rows: list[Message] = []
        self.again: list[Message] = []
        self.asked: list[Position | None] = []
        self.read = asyncio.Event()
        self._on_read = on_read

    def reader(self, user_id: str, *, takes_sync: bool, device_id: int | None) -> "Archive":
        return self

    async def start(self, position: Position | None, *, with_undelivered: bool) -> Begun:
        self.asked.append(position)
        rows, self.rows = self.rows, []
        self._on_read()
        self.read.set()
        taken = Snapshot(len(self.asked) + 1)
        return Begun(Pass(Snapshot(1), NOW, taken, NOW, Incarnation(1, "00" * 8)), Page(rows, more=False))

    async def next_page(self) -> Page:
        raise AssertionError("there is no other page")

    async def due(self, limit: int) -> list[Message]:
        return self.again[:limit]

    async def proven(self, position: Position) -> tuple[tuple[int, ...], tuple[int, ...]]:
        raise AssertionError("reading asks for no proof")


class Devices:
    async def find(self, user_id: str, device_token: str) -> KnownDevice | None:
        raise AssertionError("no device was named")


async def connected() -> MutableMapping[str, Any]:
    """A client that stays."""
    await asyncio.Event().wait()
    raise AssertionError


async def allowed() -> None:
    """Nothing has been revoked."""


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_it_reads_once_for_each_time_it_is_told() -> None:
    """From where it was; a wake that brings nothing is one read, and silence is none."""
    archive, waiters = Archive(), Waiters()
    polling = Polling(lambda _: archive, Devices(), waiters)
    waiting = asyncio.create_task(polling.answer_within(LONG, ADA, connected, allowed))
    await settle()
    assert len(archive.asked) == 1

    waiters.wake("ada")
    await settle()
    assert len(archive.asked) == 2
    await settle()
    archive.rows = [Message(7, 7, b"{}", 0)]
    waiters.wake("bob")
    await settle()
    assert len(archive.asked) == 2
    waiters.wake("ada")
    answer = await waiting

    assert [message.id for message in answer.messages] == [7]
    assert [None if one is None else one.seen.xmax for one in archive.asked] == [None, 2, 3]
    assert waiters.count == 0


async def test_nothing_that_comes_during_a_read_is_missed() -> None:
    """It may be too late for that read, so another follows."""
    waiters = Waiters()

    def written_just_after() -> None:
        if len(archive.asked) == 1:
            archive.rows = [Message(7, 7, b"{}", 0)]
            waiters.wake("ada")

    archive = Archive(written_just_after)
    answer = await Polling(lambda _: archive, Devices(), waiters).answer_within(LONG, ADA, connected, allowed)

    assert [message.id for message in answer.messages] == [7]


async def test_nobody_waits_in_a_process_that_leaves() -> None:
    """One read, and the answer."""
    archive, waiters = Archive(), Waiters()
    waiters.release()

    answer = await Polling(lambda _: archive, Devices(), waiters).answer_within(LONG, ADA, connected, allowed)

    assert (answer.messages, len(archive.asked)) == ([], 1)


@pytest.mark.parametrize("by", ["cancel", "disconnect"])
async def test_one_that_ends_leaves_no_task(by: str) -> None:
    """Neither that which watches the client nor that which waits."""
    archive, waiters = Archive(), Waiters()
    gone = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    before = asyncio.all_tasks()
    waiting = asyncio.create_task(
        Polling(lambda _: archive, Devices(), waiters).answer_within(LONG, ADA, receive, allowed)
    )
    await archive.read.wait()
    await settle()
    if by == "cancel":
        waiting.cancel()
    else:
        gone.set()
    await asyncio.wait({waiting})
    await settle()

    assert waiting.cancelled() == (by == "cancel")
    assert asyncio.all_tasks() == before
    assert waiters.count == 0

"""Who waits for something new, and what that costs the others."""

import asyncio
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from app.core.commands import Command
from app.core.messages import Message
from app.core.position import Incarnation, Pass
from app.core.snapshot import Snapshot
from app.outbox.fan_out import FanOut
from app.sync.waiters import TooManyWaiting, Waiters

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PASS = Pass(Snapshot(1), NOW, Snapshot(2), NOW, Incarnation(1, "00" * 8))
ROW = Message(1, 1, b"{}", 0)


class Hub:
    """Where rows go; it keeps what it is told."""

    def __init__(self, *users: str) -> None:
        self.users = set(users)
        self.told: list[object] = []

    def route(self, user_id: str, messages: list[Message], found_by: Pass) -> None:
        self.told.append((user_id, messages, found_by))

    def obey(self, command: Command) -> None:
        self.told.append(command)

    def completed(self, done: Pass) -> None:
        self.told.append(done)


def test_while_nobody_waits_only_the_hub_is_asked() -> None:
    """The very set of its users: no row costs more than without those who could wait."""
    hub, waiters = Hub("ada"), Waiters()
    fan_out = FanOut(hub, waiters)

    assert fan_out.users is hub.users
    with waiters.place("bob"):
        assert [user in fan_out.users for user in ("ada", "bob", "eve")] == [True, True, False]
    assert fan_out.users is hub.users


def test_rows_and_commands_reach_the_hub_and_wake_their_user() -> None:
    """And nobody else."""
    hub, waiters = Hub(), Waiters()
    fan_out = FanOut(hub, waiters)
    removed = Command("device_removed", "ada", 5, None)
    anonymous = Command("disconnect", None, None, None)

    with waiters.place("ada") as ada, waiters.place("ada") as ada_too, waiters.place("bob") as bob:
        fan_out.route("ada", [ROW], PASS)
        assert (ada.is_set(), ada_too.is_set(), bob.is_set()) == (True, True, False)
        fan_out.obey(Command("device_removed", "bob", 5, None))
        assert bob.is_set()
    fan_out.obey(removed)
    fan_out.obey(anonymous)
    fan_out.completed(PASS)

    assert hub.told[0] == ("ada", [ROW], PASS)
    assert hub.told[2:] == [removed, anonymous, PASS]


def test_places_are_counted_and_given_back() -> None:
    """Per user and in all; whoever is refused takes none."""
    waiters = Waiters(per_user=2, per_process=3)
    with ExitStack() as places:
        for user in ("ada", "ada"):
            places.enter_context(waiters.place(user))
        with pytest.raises(TooManyWaiting) as refused:
            places.enter_context(waiters.place("ada"))
        assert refused.value.of_user
        places.enter_context(waiters.place("bob"))
        with pytest.raises(TooManyWaiting) as refused:
            places.enter_context(waiters.place("eve"))
        assert not refused.value.of_user
        assert waiters.count == 3
        assert set(waiters.users) == {"ada", "bob"}
    assert waiters.count == 0
    assert not waiters.users


async def test_everybody_is_told_when_the_process_leaves() -> None:
    """Also one who was cancelled meanwhile leaves nothing behind."""
    waiters = Waiters()

    async def wait(user: str) -> None:
        with waiters.place(user) as told:
            await told.wait()

    waiting = [asyncio.create_task(wait(user)) for user in ("ada", "ada", "bob")]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert waiters.count == 2
    waiters.release()
    await asyncio.gather(*waiting[1:])

    assert waiters.released
    assert waiters.count == 0

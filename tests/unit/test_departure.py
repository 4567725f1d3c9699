"""How the connections of a process go: told at once, closed one by one, and nobody waits for nobody."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from app.gateway import departure
from app.gateway.departure import leave_all, spread

PATIENCE = 30.0
LONG = 3600.0


class Guest:
    """A connection as the departure sees it; `told` and `closed` are places in what happened to all."""

    def __init__(
        self, happened: list[str], *, in_flight: int = 0, then: Callable[["Guest"], None] | None = None
    ):
        self.session = SimpleNamespace(in_flight=in_flight)
        self.is_over = False
        self.after_ms: int | None = None
        self.hastened: list[int] = []
        self.told = self.closed = -1
        self._happened = happened
        self._then = then

    def hasten(self) -> None:
        self.hastened.append(len(self._happened))

    def leave(self, after_ms: int) -> None:
        self.after_ms = after_ms
        self.told = len(self._happened)
        self._happened.append("told")
        if self._then is not None:
            self._then(self)

    def close(self, code: int, reason: str) -> None:
        assert code == 1001
        self.closed = len(self._happened)
        self._happened.append("closed")
        self.is_over = True


def gone(guest: Guest) -> None:
    """It leaves by itself."""
    guest.is_over = True


async def leave(guests: list[Guest], window: float) -> None:
    """Let them go; fails when that takes longer than it could."""
    async with asyncio.timeout(PATIENCE):
        await leave_all(guests, window=window)  # type: ignore[arg-type]


async def test_all_are_told_first_and_closed_in_the_order_told() -> None:
    """Each at another time."""
    happened: list[str] = []
    guests = [Guest(happened) for _ in range(200)]

    await leave(guests, 0.5)

    assert happened == ["told"] * 200 + ["closed"] * 200
    by_time = sorted(guests, key=lambda guest: guest.closed)
    assert [guest.after_ms for guest in by_time] == sorted(guest.after_ms for guest in guests)
    assert sorted(guest.told for guest in guests) == [guest.told for guest in by_time]
    assert by_time != guests


async def test_each_is_asked_once_more_before_its_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what was sent since it was told; and not all of them at once."""
    monkeypatch.setattr(departure, "CONFIRM_BEFORE", 0.1)
    happened: list[str] = []
    guests = [Guest(happened) for _ in range(50)]

    await leave(guests, LONG)

    for guest in guests:
        first, second = guest.hastened
        assert first == 0
        assert 50 <= second <= guest.closed
    assert max(guest.hastened[1] for guest in guests) > 50


@pytest.mark.parametrize("count", [0, 1, 5])
async def test_few_are_not_kept_waiting(count: int) -> None:
    """The window is for crowds."""
    guests = [Guest([]) for _ in range(count)]

    await leave(guests, LONG)

    assert all(guest.is_over for guest in guests)


async def test_when_the_last_has_gone_by_itself_nothing_is_waited_for() -> None:
    """Polite clients close when they are told."""
    guests = [Guest([], then=gone) for _ in range(10_000)]

    await leave(guests, LONG)

    assert all(guest.closed < 0 for guest in guests)


async def test_who_has_gone_meanwhile_is_told_nothing() -> None:
    """While the others confirm."""
    guests = [Guest([]), Guest([])]
    gone(guests[0])

    await leave(guests, LONG)

    assert [guest.after_ms is None for guest in guests] == [True, False]


async def test_who_confirms_nothing_is_waited_for_no_longer_than_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it has not confirmed is replayed by whoever has it next."""
    monkeypatch.setattr(departure, "LAST_CONFIRMATIONS", 0.05)
    guest = Guest([], in_flight=3)

    await leave([guest], LONG)

    assert guest.is_over


@pytest.mark.parametrize("count", [1000, 5000])
def test_thousands_are_spread_evenly_over_the_window(count: int) -> None:
    """No tenth of it gets more than its share, and it is used to the end."""
    times = spread(count, 8.0)

    assert times == sorted(times)
    for tenth in range(10):
        inside = sum(0.8 * tenth <= time < 0.8 * (tenth + 1) for time in times)
        assert abs(inside - count / 10) <= 2


def test_no_two_processes_spread_alike() -> None:
    """Each client has its own moment within its share."""
    assert spread(10, 8.0) != spread(10, 8.0)

"""A crowd is let in a few at a time, in the order in which it came, and all of it."""

import asyncio
from itertools import pairwise

from app.gateway.uvicorn_host.turnstile import AT_ONCE, PAUSE, Turnstile

PATIENCE = 10.0


async def test_a_crowd_enters_in_its_order_a_few_per_turn() -> None:
    """Whoever comes while others wait is behind them."""
    turnstile, entered, turns = Turnstile(), list[int](), list[float]()
    all_in = asyncio.Event()
    loop = asyncio.get_running_loop()

    def enter(number: int) -> None:
        entered.append(number)
        turns.append(loop.time())
        if len(entered) == 5 * AT_ONCE:
            all_in.set()

    for number in range(5 * AT_ONCE):
        if turnstile.lets_in(lambda number=number: enter(number)):  # type: ignore[misc]
            enter(number)
    assert entered == [*range(AT_ONCE)]

    await asyncio.wait_for(all_in.wait(), PATIENCE)
    assert entered == [*range(5 * AT_ONCE)]
    firsts = turns[::AT_ONCE]
    between = [later - earlier for earlier, later in pairwise(firsts)]
    assert min(between) > PAUSE / 2


async def test_who_comes_after_a_crowd_enters_at_once() -> None:
    """When a turn has passed in which nobody waited."""
    turnstile = Turnstile()
    assert [turnstile.lets_in(lambda: None) for _ in range(AT_ONCE)] == [True] * AT_ONCE
    last = asyncio.Event()
    assert not turnstile.lets_in(last.set)
    await asyncio.wait_for(last.wait(), PATIENCE)
    async with asyncio.timeout(PATIENCE):
        while not turnstile.lets_in(lambda: None):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(PAUSE)

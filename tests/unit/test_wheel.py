"""When connections look at the time: one timer for all of them."""

import asyncio
from collections.abc import Callable

from app.gateway.wheel import AT_ONCE, STEP, Wheel

PATIENCE = 10.0


class Someone:
    """Who waits for a moment, and notes when it came."""

    def __init__(self, do: Callable[[], None] = lambda: None) -> None:
        self.times: list[float] = []
        self.fault: Exception | None = None
        self.called = asyncio.Event()
        self._do = do

    def on_time(self) -> None:
        self.times.append(asyncio.get_running_loop().time())
        self.called.set()
        self._do()

    def abandon(self, fault: Exception) -> None:
        self.fault = fault


async def called(*those: Someone) -> None:
    async with asyncio.timeout(PATIENCE):
        for one in those:
            await one.called.wait()


async def test_everybody_is_called_once_and_not_before_the_time() -> None:
    """Also who asks for an earlier moment than all before, and who asks again when called."""
    loop = asyncio.get_running_loop()
    wheel, began = Wheel(loop), loop.time()
    late, early = Someone(), Someone()
    again = Someone(lambda: None if len(again.times) > 1 else again.called.clear() or ask_again())

    def ask_again() -> None:
        wheel.set(again, loop.time() + STEP)

    wheel.set(late, began + 4 * STEP)
    wheel.set(early, began + STEP)
    wheel.set(again, began + STEP)
    await called(late, early, again)

    assert [len(one.times) for one in (late, early, again)] == [1, 1, 2]
    # The loop's own clock is a millisecond coarse.
    assert late.times[0] >= began + 4 * STEP - 0.002
    assert early.times[0] >= began + STEP - 0.002
    assert early.times[0] < late.times[0]


async def test_who_takes_it_back_is_not_called() -> None:
    """Nor does it harm to take it back twice."""
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    gone, there = Someone(), Someone()
    slot = wheel.set(gone, loop.time() + STEP)
    wheel.set(there, loop.time() + 2 * STEP)
    wheel.unset(gone, slot)
    wheel.unset(gone, slot)
    await called(there)
    assert gone.times == []


async def test_ones_fault_does_not_reach_the_others() -> None:
    """It is given up, and the next turn comes."""
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)

    def fail() -> None:
        raise RuntimeError("a fault")

    faulty, beside, later = Someone(fail), Someone(), Someone()
    at = loop.time() + STEP
    for one in (faulty, beside):
        wheel.set(one, at)
    wheel.set(later, at + STEP)
    await called(beside, later)
    assert isinstance(faulty.fault, RuntimeError)
    assert beside.fault is None


async def test_who_takes_it_back_while_others_of_its_moment_are_called_is_not_called() -> None:
    """One of them closes the other."""
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    slots: list[int] = []
    one = Someone(lambda: wheel.unset(other, slots[1]))
    other = Someone(lambda: wheel.unset(one, slots[0]))
    last = Someone()
    at = loop.time() + STEP
    slots += [wheel.set(one, at), wheel.set(other, at)]
    wheel.set(last, at + STEP)
    await called(last)
    assert len(one.times + other.times) == 1
    assert len(last.times) == 1


async def test_a_crowd_that_is_due_at_once_makes_way_for_others() -> None:
    """Whatever else the loop has to do waits for a few of them, and not for all."""
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    before_other_work: list[int] = []

    def work_comes() -> None:
        loop.call_soon(lambda: before_other_work.append(sum(len(one.times) for one in crowd)))

    crowd = [Someone(work_comes) for _ in range(10 * AT_ONCE)]
    at = loop.time() + STEP
    for one in crowd:
        wheel.set(one, at)
    await called(*crowd)

    assert before_other_work[0] == AT_ONCE
    assert [len(one.times) for one in crowd] == [1] * len(crowd)

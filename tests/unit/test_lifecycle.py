"""One shape for everything that runs for as long as the process does."""

import asyncio
import logging

import pytest

from app.lifecycle import Part


class Loop:
    """A loop that notes how it fares, and fails as often as it is told to."""

    def __init__(self, faults: int = 0) -> None:
        self.faults = faults
        self.starts = 0
        self.ends = 0
        self.running = asyncio.Event()

    async def run(self) -> None:
        self.starts += 1
        try:
            if self.starts <= self.faults:
                raise ValueError("a mistake of ours")
            self.running.set()
            await asyncio.Event().wait()
        finally:
            self.ends += 1


async def test_it_may_be_stopped_before_it_was_started_and_twice() -> None:
    """Bootstrap need not know how far the start had come."""
    loop = Loop()
    part = Part("part", loop.run)
    await part.stop()
    part.start()
    await loop.running.wait()
    await part.stop()
    await part.stop()
    assert (loop.starts, loop.ends) == (1, 1)


async def test_it_is_started_once_however_often_that_is_asked() -> None:
    """Two loops of one part would do everything twice."""
    loop = Loop()
    part = Part("part", loop.run)
    part.start()
    part.start()
    await loop.running.wait()
    await part.stop()
    assert loop.starts == 1


async def test_it_can_be_started_again_after_a_stop() -> None:
    """A stop leaves nothing behind."""
    loop = Loop()
    part = Part("part", loop.run)
    for _ in range(50):
        part.start()
        await loop.running.wait()
        loop.running.clear()
        await part.stop()
    assert loop.starts == loop.ends == 50


async def test_a_stop_before_its_first_step_ends_it() -> None:
    """It may be stopped between the start and the loop's own first turn."""
    loop = Loop()
    part = Part("part", loop.run)
    for _ in range(50):
        part.start()
        await part.stop()
    assert loop.starts == loop.ends


async def test_a_fault_is_told_and_the_loop_runs_again(caplog: pytest.LogCaptureFixture) -> None:
    """With its cause; a process that looks healthy must not be deaf."""
    loop = Loop(faults=2)
    part = Part("part", loop.run, restart_after=0)
    with caplog.at_level(logging.ERROR):
        part.start()
        await asyncio.wait_for(loop.running.wait(), 10)
    assert loop.starts == 3
    assert part.state().reasons == ("part: failed by a mistake of the service's own; see its log",)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError] * 2
    await part.stop()

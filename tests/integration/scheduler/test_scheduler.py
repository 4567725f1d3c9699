"""The scheduler itself: who runs, what a failure does, and how it ends."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.lifecycle import Part
from app.scheduler.scheduler import Job, Scheduler

OFTEN = 0.01
PATIENCE = 20.0


@asynccontextmanager
async def running(*jobs: Job, retry_after: float = 10) -> AsyncIterator[Scheduler]:
    """A scheduler that runs these jobs."""
    scheduler = Scheduler(jobs, retry_after=retry_after)
    part = Part("scheduler", scheduler.run)
    part.start()
    try:
        async with asyncio.timeout(PATIENCE):
            yield scheduler
    finally:
        await part.stop()


class Count:
    """A job that counts its runs, and fails while it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.runs = 0
        self.failure = failure
        self._ran = asyncio.Event()

    async def run(self) -> None:
        self.runs += 1
        self._ran.set()
        if self.failure is not None:
            raise self.failure

    async def more(self, count: int = 1) -> None:
        """Wait for so many more runs."""
        wanted = self.runs + count
        while self.runs < wanted:
            self._ran.clear()
            await self._ran.wait()


class Slow:
    """A job that goes on until it is let go."""

    def __init__(self) -> None:
        self.at_once = self.most_at_once = self.begun = 0
        self.began = asyncio.Event()
        self.let_go = asyncio.Event()
        self.ended: str | None = None

    async def run(self) -> None:
        self.begun += 1
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.began.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        finally:
            self.at_once -= 1


async def test_a_job_that_raises_does_not_stop_another() -> None:
    """Beside a job that fails every time, the other goes on, and so does the one that fails."""
    broken, sound = Count(ValueError("no good")), Count()
    async with running(Job("broken", OFTEN, broken.run), Job("sound", OFTEN, sound.run)) as scheduler:
        await broken.more(3)
        await sound.more(3)

        assert scheduler.outcomes["broken"].failures >= 2
        assert scheduler.outcomes["sound"].failures == 0


async def test_a_failing_job_is_in_health_until_it_works_again() -> None:
    """Health is degraded with job and cause while the last run failed; the cause stays on record."""
    job = Count(ValueError("no good\nand more of it"))
    async with running(Job("broken", OFTEN, job.run), Job("sound", OFTEN, Count().run)) as scheduler:
        await job.more(2)
        failing = scheduler.state()
        job.failure = None
        await job.more(2)
        working = scheduler.state()

    assert failing.reasons == ("job broken: ValueError: no good",)
    assert failing.details["broken"]["failing"]
    assert not failing.details["sound"]["failing"]
    assert failing.ready
    assert working.reasons == ()
    assert working.details["broken"]["last_error"] == "ValueError: no good"
    assert working.details["broken"]["failures"] < working.details["broken"]["runs"]


async def test_a_job_that_failed_is_tried_again_before_its_next_turn() -> None:
    """An hourly job that met a restart of the database does not leave health degraded for an hour."""
    job = Count(OSError("away"))
    async with running(Job("hourly", 3600, job.run, first_after=0), retry_after=OFTEN) as scheduler:
        await job.more(3)
        job.failure = None
        await job.more()
        await asyncio.sleep(5 * OFTEN)

        assert scheduler.state().reasons == ()
        assert scheduler.outcomes["hourly"].runs - scheduler.outcomes["hourly"].failures == 1


async def test_a_turn_that_comes_while_the_run_before_is_ending_is_not_lost() -> None:
    """It would be skipped, and an hourly job not be tried again for an hour."""
    job = Count(OSError("away"))
    async with running(Job("hourly", 3600, job.run, first_after=0), retry_after=0):
        await job.more(3)


async def test_jobs_that_fail_for_one_reason_share_a_line_of_health() -> None:
    """With the database away every job fails alike; that is one reason and not ten."""
    one, other = Count(OSError("away")), Count(OSError("away"))
    async with running(Job("one", OFTEN, one.run), Job("other", OFTEN, other.run)) as scheduler:
        await one.more(2)
        await other.more(2)

        assert scheduler.state().reasons == ("job one, other: OSError: away",)


async def test_a_failure_is_logged_once_in_one_line_with_its_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first of equal failures is a warning without traceback; the traceback is there at debug."""
    caplog.set_level(logging.DEBUG, "app.scheduler")
    job = Count(ValueError("no good"))
    async with running(Job("broken", OFTEN, job.run)):
        await job.more(5)
        job.failure = None
        await job.more(2)

    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in warnings] == ["job broken failed: ValueError: no good"]
    assert warnings[0].exc_info is None
    assert any(record.exc_info for record in caplog.records if record.levelno == logging.DEBUG)
    assert [
        r.getMessage() for r in caplog.records if r.levelno == logging.INFO and r.name.startswith("app")
    ] == ["job broken works again"]


async def test_a_slow_job_never_runs_twice_at_once() -> None:
    """While it runs its turns are passed over; afterwards it runs again."""
    slow, other = Slow(), Count()
    async with running(Job("slow", OFTEN, slow.run), Job("other", OFTEN, other.run)):
        await slow.began.wait()
        await other.more(10)
        assert slow.begun == 1
        slow.began.clear()
        slow.let_go.set()
        await slow.began.wait()

    assert slow.most_at_once == 1


def block(seconds: float) -> None:
    """Keep the loop from doing anything else."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def test_a_loop_that_was_stuck_runs_a_job_once_and_not_for_every_turn_it_missed() -> None:
    """Missed turns are taken together: afterwards there are no more runs than intervals."""
    job = Count()
    async with running(Job("late", 0.1, job.run, first_after=0)):
        await job.more()
        block(2)
        before, began = job.runs, time.monotonic()
        await job.more(3)

        assert job.runs - before <= (time.monotonic() - began) / 0.1 + 2


async def test_a_turn_is_taken_however_late() -> None:
    """A run that falls into the time when the loop was stuck is not left out until the next hour."""
    job = Count()
    async with running(Job("late", 3600, job.run, first_after=0.05)) as scheduler:
        await asyncio.sleep(0)
        assert scheduler.outcomes["late"].runs == 0
        block(2)
        await job.more()


async def test_a_job_is_hastened_and_runs_once_more_when_it_was_running() -> None:
    """What is hastened meanwhile may have come too late for the run under way."""
    slow, seldom = Slow(), Count()
    async with running(
        Job("slow", 3600, slow.run, first_after=3600), Job("seldom", 3600, seldom.run, first_after=3600)
    ) as scheduler:
        await asyncio.sleep(0)
        scheduler.hasten("seldom")
        await seldom.more()
        scheduler.hasten("slow")
        await slow.began.wait()
        scheduler.hasten("slow")
        scheduler.hasten("slow")
        slow.began.clear()
        slow.let_go.set()
        await slow.began.wait()

    assert slow.begun == 2


async def test_stopping_ends_a_job_under_way_and_lets_every_job_clear_up() -> None:
    """When stop returns nothing runs any more, and no failure is counted; one that cannot clear up stops none."""
    slow = Slow()
    left: list[str] = []

    async def leave() -> None:
        left.append("left")

    async def cannot() -> None:
        raise OSError("away")

    jobs = (
        Job("stubborn", 3600, Count().run, leave=cannot),
        Job("slow", 3600, slow.run, first_after=0, leave=leave),
    )
    async with running(*jobs) as scheduler:
        await slow.began.wait()

    assert slow.ended == "cancelled"
    assert slow.at_once == 0
    assert left == ["left"]
    assert scheduler.outcomes["slow"].failures == 0


async def test_it_can_be_stopped_before_it_was_started_and_twice_and_started_again() -> None:
    """The life of every part of the process."""
    job = Count()
    scheduler = Scheduler([Job("job", OFTEN, job.run)])
    part = Part("scheduler", scheduler.run)
    scheduler.hasten("job")
    await part.stop()
    for _ in range(2):
        part.start()
        async with asyncio.timeout(PATIENCE):
            await job.more(2)
        await part.stop()
        await part.stop()
    runs = job.runs
    scheduler.hasten("job")
    await asyncio.sleep(5 * OFTEN)

    assert job.runs == runs

"""APScheduler, told what to run and asked how it went."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from app.core.messages import timestamp
from app.telemetry.state import State

log = logging.getLogger(__name__)

JITTER = 0.1
"""Share of its interval by which a run may be late, so that processes do not march in step."""
FIRST_WITHIN = 30.0
"""Seconds within which every job has run once, however long its interval: processes may be short-lived."""
SKIPPED_AFTER = 0.1
"""Seconds after which a turn is repeated that came too early."""
LEAVE_TIMEOUT = 2.0
"""Seconds that a job has to clear up after itself when the process leaves."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do every so many seconds.

    `first_after`: seconds before the first run, random unless given. `leave` is called once at the end.
    """

    name: str
    every: float
    run: Callable[[], Coroutine[Any, Any, object]]
    first_after: float | None = None
    leave: Callable[[], Awaitable[None]] | None = None


@dataclass(slots=True)
class Outcome:
    """How a job has done since the process started."""

    runs: int = 0
    failures: int = 0
    last_run: datetime | None = None
    """When its last run ended."""
    seconds: float | None = None
    """How long that took."""
    last_error: str | None = None
    """The cause of its last failure, in one line."""
    failing: bool = False
    """Whether its last run failed."""


class Scheduler:
    """Runs jobs until it is cancelled; what one of them raises is noted and reaches no other.

    A job that failed is tried again after `retry_after` seconds, or at its next turn when that is sooner:
    the failure of one moment must not stay in health until the next hour.
    """

    def __init__(self, jobs: Iterable[Job], *, retry_after: float = 10.0) -> None:
        self._jobs = {job.name: job for job in jobs}
        self.outcomes = {name: Outcome() for name in self._jobs}
        """By name of the job."""
        self._retry_after = retry_after
        self._running: dict[str, asyncio.Task[object]] = {}
        self._again: set[str] = set()
        self._clockwork: AsyncIOScheduler | None = None

    async def run(self) -> None:
        """Run every job at its time; when cancelled, end what is under way and wait until it has ended."""
        clockwork = AsyncIOScheduler(
            timezone=UTC,
            jobstores={"default": MemoryJobStore()},
            # However late, once is worth it: every job looks at what there is, not at when it was due.
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        for job in self._jobs.values():
            clockwork.add_job(
                self._run,
                IntervalTrigger(seconds=job.every, jitter=job.every * JITTER, timezone=UTC),
                args=[job],
                id=job.name,
                next_run_time=_first_run(job),
            )
        clockwork.add_listener(self._on_skipped, EVENT_JOB_MAX_INSTANCES)
        clockwork.start()
        self._clockwork = clockwork
        try:
            await asyncio.Event().wait()
        finally:
            self._clockwork = None
            clockwork.pause()
            await self._end_runs()
            clockwork.shutdown(wait=False)
            await asyncio.sleep(0)  # it shuts down in a callback of the loop
            await self._leave()

    def hasten(self, name: str) -> None:
        """Run a job now; once more when it is just running. Nothing to do while the scheduler is not."""
        if name in self._running:
            self._again.add(name)
        else:
            self._run_after(name, 0)

    def state(self) -> State:
        """How the jobs do, for health: degraded while the last run of one of them failed."""
        details = {
            name: {
                "runs": outcome.runs,
                "failures": outcome.failures,
                "failing": outcome.failing,
                "last_run": None if outcome.last_run is None else timestamp(outcome.last_run),
                "last_error": outcome.last_error,
            }
            for name, outcome in self.outcomes.items()
        }
        causes: dict[str, list[str]] = {}
        for name, outcome in self.outcomes.items():
            if outcome.failing and outcome.last_error is not None:
                causes.setdefault(outcome.last_error, []).append(name)
        return State(details, tuple(f"job {', '.join(names)}: {cause}" for cause, names in causes.items()))

    async def _run(self, job: Job) -> None:
        # In a task of its own: the executor swallows a cancellation and logs it as a failure.
        while self._clockwork is not None:
            self._again.discard(job.name)
            began = time.monotonic()
            task = asyncio.create_task(job.run(), name=f"job {job.name}")
            self._running[job.name] = task
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                return  # by a loop that ends; the executor would log it as a failure
            finally:
                del self._running[job.name]
            if task.cancelled():
                return
            self._note(job.name, task.exception(), time.monotonic() - began)
            if job.name not in self._again:
                break
        if self.outcomes[job.name].failing and self._retry_after < job.every:
            self._run_after(job.name, self._retry_after)

    def _run_after(self, name: str, seconds: float) -> None:
        if self._clockwork is not None:
            due = datetime.now(UTC) + timedelta(seconds=seconds)
            self._clockwork.modify_job(name, next_run_time=due)

    def _on_skipped(self, skipped: JobSubmissionEvent) -> None:
        """Repeat a turn that came while the run before was ending, and may be the only one for an hour."""
        if skipped.job_id not in self._running:
            self._run_after(skipped.job_id, SKIPPED_AFTER)

    def _note(self, name: str, error: BaseException | None, seconds: float) -> None:
        outcome = self.outcomes[name]
        outcome.runs += 1
        outcome.last_run, outcome.seconds = datetime.now(UTC), seconds
        if error is None:
            if outcome.failing:
                log.info("job %s works again", name)
            outcome.failing = False
            return
        cause = _one_line(error)
        # The same failure every few seconds would bury whatever else happens.
        known = outcome.failing and outcome.last_error == cause
        outcome.failures += 1
        outcome.failing, outcome.last_error = True, cause
        log.log(logging.DEBUG if known else logging.WARNING, "job %s failed: %s", name, cause)
        log.debug("job %s failed", name, exc_info=error)

    async def _end_runs(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _leave(self) -> None:
        for job in self._jobs.values():
            if job.leave is None:
                continue
            try:
                async with asyncio.timeout(LEAVE_TIMEOUT):
                    await job.leave()
            except Exception as error:  # noqa: BLE001 - nobody is left who could do better
                log.warning("job %s could not clear up: %s", job.name, _one_line(error))


def _first_run(job: Job) -> datetime:
    after = random.uniform(0, min(job.every, FIRST_WITHIN)) if job.first_after is None else job.first_after  # noqa: S311
    return datetime.now(UTC) + timedelta(seconds=after)


def _one_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

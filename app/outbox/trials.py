"""What readers refused, left unacknowledged, or processed at last: reports of it, each of which counts once.

A report is the same, under the same number, until its COMMIT is answered. Refusals are committed as durably
as the host's rows: positions pass over them, also those that are written after a crash. Where the host's rows
can be lost, as with an asynchronous standby, refusals can too, while whoever heard them lives on: so those of
the last minutes are kept, and reported again where the database no longer has them. What else of a report is
lost costs a duplicate.
"""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from uuid import uuid4

import asyncpg

from app.core.messages import RowKey
from app.store import redeliveries, reports
from app.store.redeliveries import LONGEST_DETAIL, Key, Persistence, Tried

KEPT = 10_000
"""How many refusals are kept at most after they were reported, about half a kilobyte each."""
LONGEST_OUTAGE = 86_400.0
"""Seconds after which nothing is reported again: a database forgets reporters who are silent for a month."""


@dataclass(frozen=True, slots=True)
class _Report:
    """What was noted since the report before it; of one row, that it was settled comes first."""

    number: int
    settled: dict[Key, None] = field(default_factory=dict)
    tried: dict[Key, Tried] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.settled) + len(self.tried)

    def refused_by(self, device_id: int | None) -> Iterator[RowKey]:
        return (row for (row, device), one in self.tried.items() if device == device_id and one.nacks)


class Trials:
    """Collects the trials of one process; a restart may take what its last `kept_for` seconds reported."""

    def __init__(self, persistence: Persistence, *, kept_for: float) -> None:
        self._persistence = persistence
        self._kept_for = kept_for
        self._reporter = uuid4()
        self._answered: deque[tuple[float, _Report]] = deque()
        self._refusals_kept = 0
        self._are_in_doubt = False
        self._unanswered: deque[_Report] = deque()
        self._next = _Report(1)

    def __len__(self) -> int:
        """Of how many rows something is to be written, and one more while it may be of others."""
        return self._are_in_doubt + sum(map(len, self._reports()))

    def refused_by(self, device_id: int | None) -> frozenset[RowKey]:
        """Rows that a reader could not process although the table does not say so yet, or no longer."""
        kept = (report for _, report in self._answered)
        return frozenset(row for report in (*kept, *self._reports()) for row in report.refused_by(device_id))

    def settle(self, row: RowKey, device_id: int | None) -> None:
        """Note that a row that was to be sent again has been processed."""
        self._next.tried.pop((row, device_id), None)
        self._next.settled[row, device_id] = None

    def refuse(self, row: RowKey, user_id: str, device_id: int | None, reason: str | None) -> None:
        """Note that a row could not be processed, and is to be sent again later; `reason` is storable."""
        detail = None if reason is None else reason[:LONGEST_DETAIL]
        self._try_again(Tried(row, user_id, device_id, nacks=1, detail=detail))

    def left_unacked(self, row: RowKey, user_id: str, device_id: int | None) -> None:
        """Note that a connection ended with this row as the oldest that it had not acknowledged."""
        self._try_again(Tried(row, user_id, device_id, attempts=1))

    async def write(self, connection: asyncpg.Connection) -> int:
        """Write what was noted, and return how much that was; all stays noted when the driver raises."""
        noted = len(self)
        if not noted:
            return 0
        # Before each: a later one that counts would hide that those before it are gone.
        await self._take_back_what_is_lost(connection)
        if self._next:
            self._unanswered.append(self._next)
            self._next = _Report(self._next.number + 1)
        while self._unanswered:
            await self._write(connection, self._unanswered[0])
            self._keep(self._unanswered.popleft())
        return noted

    def doubt(self) -> None:
        """Look with the next batch whether the database still has the last refusals."""
        self._are_in_doubt = bool(self._answered)

    async def _take_back_what_is_lost(self, connection: asyncpg.Connection) -> None:
        self._forget(LONGEST_OUTAGE)
        counted = await reports.last_counted(connection, self._reporter)
        self._are_in_doubt = False
        while self._answered and self._answered[-1][1].number > counted:
            _, report = self._answered.pop()
            self._refusals_kept -= len(report)
            self._unanswered.appendleft(report)

    def _reports(self) -> tuple[_Report, ...]:
        return (*self._unanswered, self._next)

    def _keep(self, report: _Report) -> None:
        refusals = {key: one for key, one in report.tried.items() if one.nacks}
        if refusals:
            self._answered.append((time.monotonic(), _Report(report.number, tried=refusals)))
            self._refusals_kept += len(refusals)
        self._forget(self._kept_for)

    def _forget(self, after: float) -> None:
        until = time.monotonic() - after
        while self._answered and (self._answered[0][0] < until or self._refusals_kept > KEPT):
            self._refusals_kept -= len(self._answered.popleft()[1])

    def _try_again(self, tried: Tried) -> None:
        key = tried.row, tried.device_id
        before = self._next.tried.get(key)
        if before is not None:
            tried = replace(
                before,
                attempts=before.attempts + tried.attempts,
                nacks=before.nacks + tried.nacks,
                detail=tried.detail or before.detail,
            )
        self._next.tried[key] = tried

    async def _write(self, connection: asyncpg.Connection, report: _Report) -> None:
        async with connection.transaction():
            if not report.tried:
                await connection.execute("SET LOCAL synchronous_commit = off")
            if await reports.is_new(connection, self._reporter, report.number):
                await self._count(connection, report)

    async def _count(self, connection: asyncpg.Connection, report: _Report) -> None:
        present = await redeliveries.present(
            connection, {row[0] for row, _ in (*report.settled, *report.tried)}
        )
        settled = [(row, device) for row, device in report.settled if present.get(row[0], row) == row]
        tried = [one for one in report.tried.values() if present.get(one.row[0]) == one.row]
        if settled:
            await redeliveries.settle(connection, settled)
        if tried:
            await redeliveries.record(connection, tried, self._persistence)

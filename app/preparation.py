"""Make a database that has just been reached ready for work, whenever that is.

A database that is down is waited for; one that needs somebody's help ends the start with one line that
says what to do. Found only later, such a database is told in health and looked at again.
"""

import asyncio
import logging
from collections.abc import Callable

import asyncpg
from asyncpg.exceptions import ClientConfigurationError

from app.store import bells, inspection, reads
from app.store.database import UNREACHABLE, Database
from app.store.inspection import Findings, Unusable
from app.telemetry.state import State

log = logging.getLogger(__name__)

RETRY = 0.5
"""Seconds between two tries to reach the database."""

NEEDS_HELP = (
    Unusable,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    ClientConfigurationError,
)
"""What no waiting mends."""


class StartupError(Exception):
    """The service cannot start; the text is one line that says what to do."""


class Preparation:
    """Prepares the database once, and then calls `then` with what was found.

    `ring_until` is where bells are set to, in unix milliseconds; None leaves them to the lease.
    """

    def __init__(
        self, database: Database, *, ring_until: int | None, embedded: bool, then: Callable[[Findings], None]
    ) -> None:
        self._database = database
        self._ring_until = ring_until
        self._embedded = embedded
        self._then = then
        self.problem: str | None = "not connected yet"
        """Why the database is not ready, in one line; None once it is."""

    async def attempt(self) -> bool:
        """Prepare at start-up; whether the database could be reached. Raises StartupError."""
        try:
            await self._prepare()
        except NEEDS_HELP as error:
            raise StartupError(f"cannot start: {_one_line(error)}") from error
        except (*UNREACHABLE, asyncpg.PostgresError) as error:
            self.problem = _one_line(error)
            log.warning("the database cannot be reached yet: %s", self.problem)
            return False
        return True

    async def run(self) -> None:
        """Try until the database is ready, and then rest until cancelled."""
        while self.problem is not None:
            try:
                await self._prepare()
            except (*UNREACHABLE, asyncpg.PostgresError, Unusable) as error:
                self.problem = _one_line(error)
                await asyncio.sleep(RETRY)
        await asyncio.Event().wait()

    def state(self, failure: str | None) -> State:
        """For health and readiness; `failure` is what keeps the tail from reading by now."""
        problem = self.problem or failure
        details = {"reachable": problem is None, "embedded": self._embedded}
        return State(details, (f"database: {problem}",) if problem else (), ready=problem is None)

    async def _prepare(self) -> None:
        async with self._database.driver() as connection:
            findings = await inspection.inspect(connection)
            await reads.create_incarnation(connection)
            adopted = await inspection.adopt_foreign_rows(connection)
            if self._ring_until is not None:
                await bells.ring_until(connection, self._ring_until)
        if adopted:
            log.warning("%s rows came from another cluster and count as seen", adopted)
        self.problem = None
        self._then(findings)


def _one_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

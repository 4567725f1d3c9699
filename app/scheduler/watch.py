"""Look whether what others may break is in order: the queue of bells, and the triggers."""

import logging

from app.store import bells, inspection
from app.store.database import Database
from app.telemetry.state import State

log = logging.getLogger(__name__)

REMEDY = "attach it again by `alembic stamp install_functions` and `alembic upgrade head`"
ALARMING = 0.5
"""Share of the notification queue from which triggers ring no more."""


class BellsWatch:
    """Asks how full the cluster's notification queue is; to ask is also what lets it shrink."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.usage: float | None = None
        """0 to 1; None until it was asked."""

    async def run(self) -> None:
        """Ask once."""
        async with self._database.driver() as connection:
            usage = await bells.queue_usage(connection)
        was_full, is_full = self._is_full, usage >= ALARMING
        self.usage = usage
        if is_full and not was_full:
            log.warning("%s", self._problem())
        elif was_full and not is_full:
            log.info("the notification queue has room again; bells ring")

    def state(self) -> State:
        """For health: degraded while bells are silent because of the queue."""
        details = {"queue_usage": None if self.usage is None else round(self.usage, 3)}
        return State(details, (self._problem(),) if self._is_full else ())

    @property
    def _is_full(self) -> bool:
        return self.usage is not None and self.usage >= ALARMING

    def _problem(self) -> str:
        return (
            f"bells: the notification queue is {self.usage or 0:.0%} full, so the sweep finds what is new;"
            " some session LISTENs and sits in a transaction"
        )


class TriggersWatch:
    """Inspects the triggers again: a host's migration may drop or disable them, and bring them back."""

    def __init__(self, database: Database, missing: tuple[str, ...] = ()) -> None:
        self._database = database
        self.missing = missing
        """Triggers that are absent or disabled, each with its table."""

    async def run(self) -> None:
        """Inspect once; raises Unusable when the service cannot work on this database any more."""
        async with self._database.driver() as connection:
            self.note((await inspection.inspect(connection)).triggers)

    def note(self, missing: tuple[str, ...]) -> None:
        """Take what an inspection found, and log what changed."""
        for trigger in set(missing).difference(self.missing):
            log.warning("missing or disabled: %s; %s", trigger, REMEDY)
        for trigger in set(self.missing).difference(missing):
            log.info("in place again: %s", trigger)
        self.missing = missing

    def state(self) -> State:
        """For health: degraded while one is missing, since its events do not come to exist."""
        reasons = tuple(f"trigger missing or disabled: {name}" for name in self.missing)
        return State({"missing": list(self.missing)}, reasons)

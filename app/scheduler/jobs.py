"""Which jobs there are, and how often each runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.scheduler.housekeeping import Ages, Erase, Expire, ForgetDevices, Purge
from app.scheduler.ports import Hub, Receipts
from app.scheduler.presence import DevicesSeen, Heartbeat
from app.scheduler.redelivery import Redelivery
from app.scheduler.refused import Refused
from app.scheduler.scheduler import Job
from app.scheduler.watch import BellsWatch, TriggersWatch
from app.store.database import Database
from app.store.stale import EVENTS, SYNC_ROWS, Patience

ERASE = "erase"
"""The job to hasten when a user was deleted."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """Seconds between two runs of each job."""

    redeliver: float = 5.0
    refused: float = 1.0
    beat: float = 5.0
    bells: float = 5.0
    triggers: float = 60.0
    devices: float = 600.0
    erase: float = 10.0
    housekeeping: float = 300.0


def jobs(
    database: Database,
    hub: Hub,
    receipts: Receipts,
    *,
    heartbeat: Heartbeat,
    bells: BellsWatch,
    triggers: TriggersWatch,
    patience: Patience,
    ages: Ages,
    intervals: Intervals,
) -> Sequence[Job]:
    """Every job of a process, with those that one process at a time does for all."""
    every = intervals
    return (
        Job("heartbeat", every.beat, heartbeat.run, first_after=0, leave=heartbeat.leave),
        Job("bells", every.bells, bells.run),
        Job("triggers", every.triggers, triggers.run),
        Job("redeliver", every.redeliver, Redelivery(EVENTS, database, hub, receipts, patience).run),
        Job("refused", every.refused, Refused(database, hub).run),
        Job("drain", every.redeliver, Redelivery(SYNC_ROWS, database, hub, receipts, patience).run),
        Job("devices seen", every.devices, DevicesSeen(database, hub).run),
        Job(ERASE, every.erase, Erase(database).run, first_after=0),
        Job("expire", every.housekeeping, Expire(database, ages).run),
        Job("purge", every.housekeeping, Purge(database, ages).run),
        Job("forget devices", every.housekeeping, ForgetDevices(database, ages).run),
    )

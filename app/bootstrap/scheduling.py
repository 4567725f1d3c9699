"""What is done again and again: every job, how often, and after how long."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from app.gateway.elsewhere import Elsewhere
from app.gateway.hub import Hub
from app.outbox.receipts import Receipts
from app.scheduler import jobs
from app.scheduler.housekeeping import DAY, Ages
from app.scheduler.jobs import Intervals
from app.scheduler.presence import Heartbeat
from app.scheduler.scheduler import Job
from app.scheduler.watch import BellsWatch, TriggersWatch
from app.settings import Settings
from app.store.database import Database
from app.store.processes import Process
from app.store.stale import Patience


def heartbeat(
    settings: Settings, database: Database, stats: Callable[[], dict[str, Any]], elsewhere: Elsewhere
) -> Heartbeat:
    """What this process tells of itself, and hears of others."""
    return Heartbeat(
        database,
        Process(uuid4(), socket.gethostname(), os.getpid()),
        stats,
        heard=elsewhere.heard,
        believed=settings.silence_believed,
    )


def every_job(
    settings: Settings,
    database: Database,
    hub: Hub,
    receipts: Receipts,
    *,
    beats: Heartbeat,
    bells: BellsWatch,
    triggers: TriggersWatch,
) -> Sequence[Job]:
    """The jobs of the scheduler."""
    return jobs.jobs(
        database,
        hub,
        receipts,
        heartbeat=beats,
        bells=bells,
        triggers=triggers,
        patience=Patience(settings.stale_after),
        ages=Ages(
            delivered=settings.retention_days * DAY,
            undelivered=settings.undelivered_days * DAY,
            dead_letters=settings.dead_letter_days * DAY,
            synced=settings.synced_days * DAY,
            unsynced=settings.unsynced_days * DAY,
            devices=settings.device_days * DAY,
        ),
        intervals=Intervals(
            redeliver=settings.stale_interval,
            beat=settings.beat_interval,
            bells=settings.bells_interval,
            triggers=settings.triggers_interval,
            erase=settings.erase_interval,
            housekeeping=settings.housekeeping_interval,
        ),
    )

"""PostgreSQL to process: the parts that read the outbox, and write what has arrived."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import URL

from app.core.flight import Pace
from app.core.rate import Load
from app.core.recent import Recent
from app.outbox.catch_up import Archive
from app.outbox.fan_out import FanOut
from app.outbox.listener import Listener
from app.outbox.receipts import Receipts
from app.outbox.restraint import UNRESTRAINED
from app.outbox.tail import Tail, Timing
from app.outbox.walk import PageSize
from app.settings import Bells, Settings
from app.store import bells
from app.store.database import Database, address
from app.store.redeliveries import Persistence
from app.sync.reading import MOST_BYTES

CONFIRM_AFTER = 0.2
CONFIRM_AFTER_BUSY = 2.0
REMEMBERED_ROWS = 100_000
RING_UNTIL = {Bells.ALWAYS: bells.ALWAYS, Bells.LEASED: None, Bells.OFF: bells.NEVER}


def receipts(settings: Settings, database: Database) -> Receipts:
    """What writes what has arrived."""
    return Receipts(
        database,
        interval=settings.receipts_interval,
        batch=settings.receipts_batch,
        persistence=Persistence(first_pause=settings.nack_pause),
        overlap=settings.overlap,
    )


def tail(settings: Settings, database: Database, outlet: FanOut, pace: Pace, receipts: Receipts) -> Tail:
    """The one reader of this process; the busier it is, the slower the pace of the sessions."""

    def set_pace(busy: bool) -> None:  # noqa: FBT001 - a callback with one value
        pace.confirm_after = CONFIRM_AFTER_BUSY if busy else CONFIRM_AFTER

    return Tail(
        database,
        outlet,
        timing=Timing(
            sweep=settings.sweep_interval,
            lease=settings.bell_lease if settings.bells is Bells.LEASED else None,
            believed=settings.silence_believed,
            ring_until=RING_UNTIL[settings.bells],
        ),
        load=Load(busy_above=settings.busy_above, busy_below=settings.busy_below),
        page=_page(settings),
        overlap=_overlap(settings),
        recent=Recent(REMEMBERED_ROWS),
        on_busy=set_pace,
        on_restart=receipts.database_restarted,
        burst=pace.burst,
    )


def listener(settings: Settings, url: URL, wake: Callable[[], None]) -> Listener:
    """What hears bells, on an address of its own where there is one: poolers cannot listen."""
    own = settings.listen_database_url
    own_url = address(own.get_secret_value(), name="LISTEN_DATABASE_URL") if own else None
    return Listener(own_url or url, wake)


def archive(settings: Settings, database: Database, written: Receipts, tail: Tail) -> Archive:
    """What was missed, for connections that catch up."""
    turns = asyncio.Semaphore(settings.concurrent_reads)
    return Archive(database, turns, _page(settings), _overlap(settings), written, begun=tail.begun)


def archive_of_answers(of_connections: Archive) -> Callable[[int], Archive]:
    """The same for one answer over HTTP, of at most so many rows."""
    return lambda rows: replace(
        of_connections, page=PageSize(rows, MOST_BYTES), settles=False, restraint=UNRESTRAINED
    )


def _page(settings: Settings) -> PageSize:
    return PageSize(settings.catch_up_page, settings.catch_up_page_bytes)


def _overlap(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.overlap)

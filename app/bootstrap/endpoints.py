"""What is asked over HTTP: what a request may cost, and the sync endpoints with all they need."""

from collections.abc import Callable

from app.devices.registry import Registry
from app.outbox.catch_up import Archive
from app.outbox.receipts import Receipts
from app.request_limits import RequestLimits
from app.settings import Settings
from app.store.database import Database
from app.sync.acks import Acks
from app.sync.endpoints import Sync
from app.sync.polling import Polling
from app.sync.uploads import Uploads
from app.sync.waiters import Waiters


def request_limits(settings: Settings) -> RequestLimits:
    """What a request may cost."""
    return RequestLimits(
        url_size=settings.url_size, body_size=settings.body_size, body_timeout=settings.body_timeout
    )


def sync(
    database: Database,
    registry: Registry,
    archive_of: Callable[[int], Archive],
    receipts: Receipts,
    waiters: Waiters,
) -> Sync:
    """The connection of those who are woken in the background; `archive_of` a number of rows."""
    return Sync(
        registry,
        Polling(archive_of, registry, waiters),
        Acks(database, archive_of, receipts),
        Uploads(database),
    )

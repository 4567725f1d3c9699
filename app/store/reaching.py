"""One word for every way in which the database can be away."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.reads import Unavailable
from app.store.database import UNREACHABLE
from app.store.reads import Unfit

log = logging.getLogger(__name__)


@contextmanager
def reaching_the_database(what_fails: str) -> Iterator[None]:
    """Raise Unavailable for what passes, and log that `what_fails`."""
    try:
        yield
    except (*UNREACHABLE, Unfit) as error:
        # Only the kind: the message may quote a device token.
        kind = type(error.__cause__ or error).__name__
        log.warning("%s: %s", what_fails, kind)
        raise Unavailable(kind) from error

"""How a host tells systems that have no trigger of a row, after its commit; each waits to be acknowledged."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Publish = Callable[[str, int], Awaitable[None]]
"""Tell a user of a score."""


@asynccontextmanager
async def publisher(how: str) -> AsyncIterator[Publish | None]:
    """A connection to publish on, `mqtt:PORT` or `nats:PORT`; None for `trigger`, which needs none."""
    assert how == "trigger"
    yield None

"""Let every connection go before the process does."""

import asyncio
import random
from collections.abc import Sequence

from app.gateway.connection import Connection

LAST_CONFIRMATIONS = 1.0
"""Seconds that clients get to confirm what is in flight, so that it is not sent again elsewhere."""
LOOK_EVERY = 0.02


async def leave_all(connections: Sequence[Connection], *, window: float) -> None:
    """Confirm what is in flight, then tell every client to come back, and close with 1001.

    The clients are spread over `window` seconds by what they are told, so that they do not come back as
    one wave.
    """
    for connection in connections:
        connection.hasten()
    try:
        async with asyncio.timeout(LAST_CONFIRMATIONS):
            while any(connection.session.in_flight for connection in connections):  # noqa: ASYNC110 - as many events
                await asyncio.sleep(LOOK_EVERY)
    except TimeoutError:
        pass  # what stays unconfirmed is replayed
    for connection in connections:
        connection.leave(random.randint(0, int(window * 1000)))  # noqa: S311 - spreads, hides nothing

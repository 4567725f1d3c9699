"""Let every connection go before the process does, one after the other.

All are told at the beginning when to come back, each another time, and stay served until then: whoever
takes over from this process gets them one by one and not as one wave.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import NamedTuple

from app.core.close_codes import CloseCode
from app.gateway.connection import Connection

LAST_CONFIRMATIONS = 1.0
"""Seconds that clients get to confirm what is in flight, so that it is not sent again elsewhere."""
CONFIRM_BEFORE = 0.5
"""Seconds before its close at which a client is asked once more, for what was sent meanwhile."""
CALM_RETURNS = 100
"""Clients per second that come back unnoticed beside other work; fewer clients take less than the window."""
LOOK_EVERY = 0.02
MARGIN = 2.0
"""Seconds by which a busy loop may be late."""


class _Step(NamedTuple):
    """What is done to a connection, so many seconds after everybody was told: asked once more, or closed."""

    at: float
    connection: Connection
    closes: bool


def longest(window: float) -> float:
    """Seconds after which `leave_all` has certainly ended."""
    return LAST_CONFIRMATIONS + window + MARGIN


def spread(count: int, window: float) -> list[float]:
    """When each of so many clients goes, in seconds from now, ascending.

    Evenly over `window`, or over less of it where they are few, each at random within its own share.
    """
    share = min(window / count, 1 / CALM_RETURNS) if count else 0.0
    return [(place + random.random()) * share for place in range(count)]  # noqa: S311 - spreads, hides nothing


async def leave_all(connections: Sequence[Connection], *, window: float) -> None:
    """Confirm what is in flight, tell every client when to come back, and close each with 1001 at that time.

    Takes up to `window` seconds and the last confirmations; it ends as soon as the last client has gone.
    """
    await _confirm(connections)
    leaving = [connection for connection in connections if not connection.is_over]
    random.shuffle(leaving)
    began = asyncio.get_running_loop().time()
    steps = []
    for at, connection in zip(spread(len(leaving), window), leaving, strict=True):
        connection.leave(int(at * 1000))
        steps += [_Step(at - CONFIRM_BEFORE, connection, closes=False), _Step(at, connection, closes=True)]
    for step in sorted(steps, key=lambda step: step.at):
        await _due(step, began)
        if step.connection.is_over:
            continue
        if step.closes:
            step.connection.close(CloseCode.GOING_AWAY, "this process is going away")
        else:
            step.connection.hasten()


async def _confirm(connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.hasten()
    try:
        async with asyncio.timeout(LAST_CONFIRMATIONS):
            while any(connection.session.in_flight for connection in connections):  # noqa: ASYNC110 - as many events
                await asyncio.sleep(LOOK_EVERY)
    except TimeoutError:
        pass  # what stays unconfirmed is replayed


async def _due(step: _Step, began: float) -> None:
    """Wait until it is time, or its client has gone by itself."""
    now = asyncio.get_running_loop().time
    while not step.connection.is_over and (rest := began + step.at - now()) > 0:  # noqa: ASYNC110 - as many events
        await asyncio.sleep(min(rest, LOOK_EVERY))

"""How many requests there may be, and what each may cost before anybody looks at it."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.allowance import Allowance
from app.http import RETRY_AFTER, error_answer, problem

BODIES_AT_ONCE = 20
"""Of one user: each may hold as many bytes as a body may have, for as long as one may take to arrive."""
MOST_PARTS = 50_000
"""Commas and opening brackets of a body: a mebibyte of empty lists takes the collector 250 ms."""


class RequestsPerUser:
    """Counts the requests on behalf of each user; `clock` gives seconds."""

    def __init__(self, allowance: Allowance, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._clock = clock
        self._bodies: Counter[str] = Counter()

    def count(self, user_id: str) -> None:
        """Count one; answers 429 when it is too many."""
        wait = self._allowance.take(user_id, self._clock())
        if wait:
            message = "Too many requests of this user; try again later."
            raise problem(429, "rate_limited", message, {"Retry-After": str(math.ceil(wait))})

    @contextmanager
    def with_a_body(self, user_id: str) -> Iterator[None]:
        """Count one that has a body for as long as it is served; answers 429 when there are too many."""
        if self._bodies[user_id] >= BODIES_AT_ONCE:
            message = "Too many uploads of this user at once; wait for the answers to the others."
            raise problem(429, "rate_limited", message, RETRY_AFTER)
        self._bodies[user_id] += 1
        try:
            yield
        finally:
            self._bodies[user_id] -= 1
            if not self._bodies[user_id]:
                del self._bodies[user_id]


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Sizes are bytes, `body_timeout` seconds."""

    url_size: int
    body_size: int
    body_timeout: float


class Unambiguous:
    """ASGI around everything of HTTP: no head that a proxy in front could have read in another way.

    What the proxy took for a body could else be a request to us, with nobody's headers checked.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request, or answer 400 and end its connection."""
        names = [name for name, _ in scope["headers"]]
        has_two_lengths = b"content-length" in names and b"transfer-encoding" in names
        if has_two_lengths or names.count(b"host") > 1:
            told = "Give one Host, and either Content-Length or Transfer-Encoding."
            refused = error_answer(problem(400, "malformed", told, {"Connection": "close"}))
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Limited:
    """ASGI around the endpoints: no request takes more than its limits, whatever its headers say."""

    def __init__(self, app: ASGIApp, limits: RequestLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        most = self._limits.url_size
        if size_of_url(scope) > most:
            refused = error_answer(problem(414, "too_large", f"The URL has more than {most} bytes."))
            await refused(scope, receive, send)
        else:
            await self._app(scope, _bounded(receive, self._limits), send)


def size_of_url(scope: Mapping[str, Any]) -> int:
    """Bytes of the path and the query of an ASGI scope, as they came."""
    query = scope["query_string"]
    return len(scope.get("raw_path") or scope["path"].encode()) + len(query) + bool(query)  # with its "?"


def _bounded(receive: Receive, limits: RequestLimits) -> Receive:
    """The same, which answers 413 and 408 to a body that is too large, has too many parts, or is too slow."""
    taken, parts, complete = 0, 0, False
    deadline = asyncio.get_running_loop().time() + limits.body_timeout

    async def bounded() -> Message:
        nonlocal taken, parts, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            late = f"The body has not come within {limits.body_timeout:g} seconds."
            raise problem(408, "too_slow", late, {"Connection": "close"}) from None
        body = message.get("body", b"")
        taken += len(body)
        parts += sum(map(body.count, (b",", b"[", b"{")))
        complete = not message.get("more_body", False)
        if taken > limits.body_size:
            too_much = f"The body has more than {limits.body_size} bytes; send less at once."
            raise problem(413, "too_large", too_much)
        if parts > MOST_PARTS:
            raise problem(413, "too_large", "The body has too many commas and brackets; send less at once.")
        return message

    return bounded

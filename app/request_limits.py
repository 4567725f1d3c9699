"""How many requests there may be, and what each may cost before anybody looks at it."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.allowance import Allowance
from app.http import error_answer, problem


class RequestsPerUser:
    """Counts the requests on behalf of each user; `clock` gives seconds."""

    def __init__(self, allowance: Allowance, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._clock = clock

    def count(self, user_id: str) -> None:
        """Count one; answers 429 when it is too many."""
        wait = self._allowance.take(user_id, self._clock())
        if wait:
            message = "Too many requests of this user; try again later."
            raise problem(429, "rate_limited", message, {"Retry-After": str(math.ceil(wait))})


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
    """The same, which answers 413 and 408 to a body that is too large or too slow."""
    taken, complete = 0, False
    deadline = asyncio.get_running_loop().time() + limits.body_timeout

    async def bounded() -> Message:
        nonlocal taken, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            late = f"The body has not come within {limits.body_timeout:g} seconds."
            raise problem(408, "too_slow", late, {"Connection": "close"}) from None
        taken += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if taken > limits.body_size:
            too_much = f"The body has more than {limits.body_size} bytes; send less at once."
            raise problem(413, "too_large", too_much)
        return message

    return bounded

"""What the HTTP endpoints share: who asks, and how they are told what went wrong."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import HTTPException, Response, status
from fastapi.responses import JSONResponse
from pydantic import StringConstraints
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.allowance import Allowance

# PostgreSQL's text holds no NUL.
UserId = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]
DeviceToken = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]

RETRY_AFTER = {"Retry-After": "5"}


def unavailable() -> HTTPException:
    """The answer while the database is away."""
    return HTTPException(
        status.HTTP_503_SERVICE_UNAVAILABLE,
        "The database cannot be reached just now; try again.",
        headers=RETRY_AFTER,
    )


def problem(
    status_code: int, code: str, message: str, headers: dict[str, str] | None = None
) -> HTTPException:
    """An answer that a program tells from others by `code`, and a person by `message`."""
    return HTTPException(status_code, {"code": code, "message": message}, headers=headers)


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
    """What a request may cost before anybody looks at it; sizes are bytes, `body_timeout` seconds."""

    url_size: int
    body_size: int
    body_timeout: float


class Limited:
    """ASGI around the endpoints: no request takes more than its limits, whatever its headers say."""

    def __init__(self, app: ASGIApp, limits: RequestLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if size_of_url(scope) > self._limits.url_size:
            await _too_long(self._limits.url_size)(scope, receive, send)
        else:
            await self._app(scope, _bounded(receive, self._limits), send)


def size_of_url(scope: Mapping[str, Any]) -> int:
    """Bytes of the path and the query of an ASGI scope, as they came."""
    query = scope["query_string"]
    return len(scope.get("raw_path") or scope["path"].encode()) + len(query) + bool(query)  # with its "?"


def _too_long(most: int) -> Response:
    return JSONResponse(
        {"detail": {"code": "too_large", "message": f"The URL has more than {most} bytes."}}, 414
    )


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

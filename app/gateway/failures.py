"""Who is heard no more over HTTP: an address from which too many requests came that may not.

Connections are counted at the door, whatever becomes of them; a request only when it was refused for its
token, since a good one counts for its user.
"""

import math
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.allowance import Allowance
from app.gateway.addresses import counted_as
from app.http import error_answer, problem

REFUSED = frozenset({401, 403})


class Failures:
    """ASGI around the endpoints; `allowed` counts refusals per public address, `clock` gives seconds."""

    def __init__(
        self, app: ASGIApp, allowed: Allowance, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._allowed = allowed
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request, or answer 429 before anybody looks at its token."""
        address = counted_as(scope)
        if address is None:
            await self._app(scope, receive, send)
            return
        wait = self._allowed.wait(address, self._clock())
        if wait:
            text = "Too many requests from this address were refused; try again later."
            later = problem(
                429, "rate_limited", text, {"Retry-After": str(math.ceil(wait)), "Connection": "close"}
            )
            await error_answer(later)(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in REFUSED:
                self._allowed.take(address, self._clock())
            await send(message)

        await self._app(scope, receive, counting)

"""Who asked over HTTP and has no answer yet when the process leaves, since the database keeps it waiting.

The server would cut such a request off, and log that as an error of ours.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http import RETRY_AFTER, error_answer, problem


class Unanswered:
    """ASGI around the endpoints: whoever has no answer when `leaving` is set is told to come back.

    An answer that has begun goes on.
    """

    def __init__(self, app: ASGIApp, leaving: asyncio.Event) -> None:
        self._app = app
        self._leaving = leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        serving = asyncio.ensure_future(self._app(scope, receive, noting))
        left = asyncio.ensure_future(self._leaving.wait())
        try:
            await asyncio.wait({serving, left}, return_when=asyncio.FIRST_COMPLETED)
            if has_begun or serving.done():
                await serving
                return
        finally:
            serving.cancel()
            left.cancel()
            await asyncio.gather(serving, left, return_exceptions=True)
        if not has_begun:
            text = "This process is going away; try again."
            headers = {**RETRY_AFTER, "Connection": "close"}
            await error_answer(problem(503, "unavailable", text, headers))(scope, receive, send)

"""What the HTTP endpoints share: who asks, and how they are told what went wrong."""

from typing import Annotated

from fastapi import HTTPException, status
from pydantic import StringConstraints
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


class BodyLimit:
    """Middleware that takes no more than `most` bytes of a request's body, whatever its headers say."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._most:
                raise problem(
                    413, "too_large", f"The body has more than {self._most} bytes; send less at once."
                )
            return message

        await self._app(scope, bounded if scope["type"] == "http" else receive, send)

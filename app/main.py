"""The ASGI application: `uvicorn app.main:app --port 8002`.

Routes and lifespan, nothing else.
"""

import json
import logging
from importlib.metadata import version
from typing import Any, TypedDict

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from app.admin import endpoints as admin
from app.bootstrap import Service
from app.devices import endpoints as devices
from app.gateway import sse
from app.http import BodyLimit
from app.preparation import StartupError
from app.settings import Settings
from app.sync import endpoints as sync
from app.telemetry import health
from app.telemetry.logging import configure

log = logging.getLogger(__name__)

LARGEST_BODY = 8 << 20
"""Bytes of a request: room for the most and largest actions that may be uploaded at once."""


class Cors(TypedDict):
    """What CORSMiddleware takes, which everything served here is given alike."""

    allow_origins: list[str]
    allow_methods: list[str]
    allow_headers: list[str]


# Whoever may read a user id may connect, as before; issue-wide authentication narrows both.
CORS = Cors(allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])


class RealTime(FastAPI):
    """FastAPI for HTTP; WebSockets, SSE and the lifespan are served on the ASGI level, below it.

    The service exists while the lifespan runs.
    """

    service: Service

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._events = CORSMiddleware(self._serve_events, **CORS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "websocket":
            await self.service.websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["path"] == sse.PATH:
            await self._events(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _serve_events(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.service.sse(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        configure()
        try:
            service = Service(Settings())
            await service.start()
        except (StartupError, ValidationError) as error:
            # One line for whoever starts it; a traceback would say nothing more.
            await send({"type": "lifespan.startup.failed", "message": _one_line(error)})
            return
        self.service = service
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await service.stop()
        await send({"type": "lifespan.shutdown.complete"})


def create_app() -> RealTime:
    """Build the application; nothing is read or connected before its lifespan starts."""
    application = RealTime(title="MindVibe Real-Time", version=version("mindvibe-realtime"))
    application.add_middleware(CORSMiddleware, **CORS)
    application.add_middleware(BodyLimit, most=LARGEST_BODY)
    application.add_exception_handler(RequestValidationError, _tell_what_is_wrong)
    application.include_router(health.router(lambda: application.service.health))
    application.include_router(devices.router(lambda: application.service.registry))
    application.include_router(sync.router(lambda: application.service.sync))
    application.include_router(admin.router(lambda: application.service.letters))
    return application


async def _tell_what_is_wrong(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Answer 422 without repeating the request: it may hold a device token, or what no answer can hold."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    told = [{name: problem[name] for name in ("type", "loc", "msg")} for problem in problems]
    return Response(json.dumps({"detail": told}), 422, media_type="application/json")


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        wrong = (f"{'.'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors())
        return f"cannot start: {'; '.join(wrong)}"
    return " ".join(str(error).split())


app = create_app()

"""The ASGI application: `uvicorn app.main:app --port 8002`.

Routes and lifespan, nothing else.
"""

import logging
from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.admin import endpoints as admin
from app.auth import endpoints as tickets
from app.auth.caller import Callers
from app.bootstrap.collector import spared
from app.bootstrap.service import Service
from app.devices import endpoints as devices
from app.gateway import sse
from app.gateway.failures import Failures
from app.gateway.origins import ANY, Origins
from app.gateway.unanswered import Unanswered
from app.http import Problem, error_answer, invalid_answer, path_of, problem
from app.preparation import StartupError
from app.request_limits import Limited, Unambiguous
from app.settings import Settings
from app.sync import endpoints as sync
from app.telemetry import health
from app.telemetry.logging import configure

log = logging.getLogger(__name__)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class RealTime(FastAPI):
    """FastAPI for HTTP; WebSockets, SSE and the lifespan are served on the ASGI level, below it.

    The service exists while the lifespan runs.
    """

    service: Service
    _shared: ASGIApp
    _limited: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.service.forwarding.note(scope)
        if scope["type"] == "websocket":
            await self.service.websocket(scope, receive, send)
        else:
            await self._shared(scope, receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if path_of(scope) == sse.PATH:
            await self.service.sse(scope, receive, send)
        else:
            await self._limited(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        configure()
        try:
            service = Service(Settings())
            await service.start()
        except Exception as error:
            # Whatever it is: to let it pass would be taken for an application without a lifespan, and served.
            if not isinstance(error, StartupError | ValueError):
                log.exception("this is our mistake")
            await send({"type": "lifespan.startup.failed", "message": _one_line(error)})
            return
        self.service = service
        endpoints = Unanswered(super().__call__, service.leaving)
        self._limited = Limited(Failures(endpoints, service.failures), service.request_limits)
        self._shared = Unambiguous(_shared(self._serve_http, service.origins))
        with spared():
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await service.stop()
        await send({"type": "lifespan.shutdown.complete"})


def create_app() -> RealTime:
    """Build the application; nothing is read or connected before its lifespan starts."""
    # A redirect would repeat the query, whatever is in it, before anybody has looked at that.
    application = RealTime(
        title="MindVibe Real-Time", version=version("mindvibe-realtime"), redirect_slashes=False
    )
    application.add_exception_handler(RequestValidationError, _tell_what_is_wrong)
    application.add_exception_handler(HTTPException, _tell_of_a_problem)
    application.add_exception_handler(Exception, _tell_of_a_mistake)
    application.include_router(health.router(lambda: application.service.health))

    def callers() -> Callers:
        return application.service.callers

    application.include_router(devices.router(lambda: application.service.registry, callers))
    application.include_router(sync.router(lambda: application.service.sync, callers))
    application.include_router(tickets.router(lambda: application.service.offices, cookie_path=sse.PATH))
    application.include_router(
        admin.router(lambda: application.service.letters, lambda: application.service.access)
    )
    return application


def _shared(app: ASGIApp, origins: Origins) -> ASGIApp:
    """Let the pages that may connect read answers too, and send the ticket's cookie where they are named."""
    return CORSMiddleware(
        app,
        allow_origins=[ANY] if origins.anyone else sorted(origins.listed),
        allow_credentials=not origins.anyone,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["Retry-After"],
    )


async def _tell_what_is_wrong(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Answer 422 without repeating the request: it may hold a device token, or what no answer can hold."""
    return invalid_answer(error.errors() if isinstance(error, RequestValidationError) else [])


async def _tell_of_a_problem(request: Request, error: Exception) -> Response:
    """Answer with the problem that somebody raised, or what the framework's own words come to."""
    match error:
        case Problem():
            return error_answer(error)
        case HTTPException(status_code=404):
            return error_answer(problem(404, "not_found", "There is nothing here; see /docs."))
        case HTTPException(status_code=405):
            message = "This cannot be done here by this method; see the header Allow."
            return error_answer(problem(405, "method_not_allowed", message, {"Allow": _allowed(request)}))
        case _:
            return error_answer(problem(400, "malformed", "The body cannot be read; send JSON."))


def _allowed(request: Request) -> str:
    """Every method that a path takes; the framework names those of one of its routes only."""
    scopes = {method: {**request.scope, "method": method} for method in METHODS}
    routes = request.app.routes
    return ", ".join(
        method
        for method, scope in scopes.items()
        if any(route.matches(scope)[0] is Match.FULL for route in routes)
    )


async def _tell_of_a_mistake(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Answer 500 in the same shape; what happened is for the log alone."""
    return error_answer(problem(500, "internal_error", "This is our mistake; try again later."))


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        wrong = (f"{'.'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors())
        return f"cannot start: {'; '.join(wrong)}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, StartupError) else f"cannot start: {text}"


app = create_app()

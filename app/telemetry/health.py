"""Health for people and readiness for load balancers, asked of the parts at the moment of asking."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Response

from app.core.messages import timestamp
from app.http import responses
from app.telemetry.state import State


class Health:
    """Collects the states of named parts; `active_users` counts users connected to this process."""

    def __init__(self, active_users: Callable[[], int], parts: dict[str, Callable[[], State]]) -> None:
        self._active_users = active_users
        self._parts = parts

    def report(self) -> dict[str, Any]:
        """The answer of `/realtime/health`."""
        states = {name: part() for name, part in self._parts.items()}
        reasons = [reason for state in states.values() for reason in state.reasons]
        return {
            "status": "degraded" if reasons else "healthy",
            "service": "realtime",
            "active_users": self._active_users(),
            "timestamp": timestamp(datetime.now(UTC)),
            "reasons": reasons,
            **{name: state.details for name, state in states.items()},
        }

    def not_ready(self) -> list[str]:
        """Why this process should get no traffic; empty when it should."""
        return [
            reason for part in self._parts.values() if not (state := part()).ready for reason in state.reasons
        ]


def router(health: Callable[[], Health]) -> APIRouter:
    """`/realtime/health` and `/realtime/ready`."""
    routes = APIRouter(prefix="/realtime", tags=["health"])
    not_ready: dict[int | str, dict[str, Any]] = {503: {"description": "This process should get no traffic."}}

    @routes.get("/health", responses=responses())
    async def get_health() -> dict[str, Any]:
        """Whether the service works, with reasons where it does not; always 200 while it answers."""
        return health().report()

    @routes.get("/ready", responses=responses() | not_ready)
    async def get_ready(response: Response) -> dict[str, Any]:
        """Whether this process should get traffic."""
        reasons = health().not_ready()
        response.status_code = 503 if reasons else 200
        return {"ready": not reasons, "reasons": reasons}

    return routes

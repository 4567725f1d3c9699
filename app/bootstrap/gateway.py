"""Process to client: the two endpoints for connections, their limits, and the server around them."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from app.core.allowance import Allowance
from app.core.flight import Limits
from app.gateway.admission import Admission, Reception
from app.gateway.connection import Surroundings
from app.gateway.departure import longest
from app.gateway.door import Door
from app.gateway.origins import Origins
from app.gateway.sse import SseEndpoint
from app.gateway.uvicorn_host import HostOptions, HostReport, find_server, install
from app.gateway.websocket import WebSocketEndpoint
from app.settings import Settings

log = logging.getLogger(__name__)

MINUTE = 60.0


def limits(settings: Settings) -> Limits:
    """The bounds of a connection over a WebSocket."""
    return Limits(
        window=settings.window,
        window_bytes=settings.window_bytes,
        queue=settings.queue,
        queue_bytes=settings.queue_bytes,
        heartbeat_interval=settings.heartbeat_interval,
        heartbeat_patience=settings.heartbeat_patience,
        takes_nothing_after=settings.takes_nothing_after,
        ack_timeout=settings.ack_timeout,
        inbound_rate=settings.inbound_rate,
    )


def admission(settings: Settings) -> Admission:
    """How many connections there may be."""
    return Admission(settings.connections_per_user, settings.connections_per_process)


def endpoints(
    settings: Settings, origins: Origins, reception: Reception, surroundings: Surroundings
) -> tuple[WebSocketEndpoint, SseEndpoint]:
    """Where clients connect; both count the attempts of an address together."""
    door = Door(origins, Allowance(settings.attempts_per_address, MINUTE), url_size=settings.url_size)
    sse_limits = replace(
        surroundings.limits,
        heartbeat_interval=settings.sse_heartbeat_interval,
        confirmed_after=settings.sse_confirmed_after,
    )
    return (
        WebSocketEndpoint(door, reception, surroundings, message_size=settings.message_size),
        SseEndpoint(door, reception, replace(surroundings, limits=sse_limits)),
    )


def host(settings: Settings, drain: Callable[[], Awaitable[None]]) -> HostReport:
    """Arrange inside the server what is to be arranged there, and log what could not be."""
    options = HostOptions(
        message_size=settings.message_size,
        handshake_timeout=settings.handshake_timeout,
        half_open=settings.half_open_per_process,
        head_size=settings.head_size,
        drain_timeout=longest(settings.drain_window),
    )
    report = install(find_server(), options, drain)
    log.log(logging.WARNING if report.missing else logging.INFO, "%s", report)
    return report

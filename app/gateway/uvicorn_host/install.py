"""Put the host's parts in place, each by itself, and report what could not be."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from . import inside
from .drain import GentleShutdown
from .half_open import HalfOpen
from .options import HostOptions
from .peers import PeerNoted
from .quiet_logs import install_filter
from .report import Capability, HostReport
from .requests import RequestHeadLimit
from .tcp import acknowledgements_supported, user_timeout_supported
from .turnstile import Turnstile

logger = logging.getLogger(__name__)

NAMES = (
    "confirmation",
    "limits",
    "half-open handshakes",
    "user timeout",
    "acknowledgements",
    "client addresses",
    "drain",
    "quiet logs",
)
_OWN_CHOICE = ("auto", "websockets-sansio")


class _MissingError(Exception):
    """A capability cannot be had; the text says why."""


def install(
    server: inside.Server | None,
    options: HostOptions,
    drain: Callable[[], Awaitable[None]],
) -> HostReport:
    """Arrange in `server` what the service needs; to be called on the loop during lifespan start-up.

    `drain` is awaited once on SIGTERM or SIGINT, with no new connections coming in, for at most
    `options.drain_timeout` seconds. Nothing is raised: what does not work is in the report.
    """
    if server is None:
        reason = "not running under uvicorn"
        return HostReport("unknown", tuple(Capability(name, reason) for name in NAMES))
    loop = asyncio.get_running_loop()
    steps: dict[str, Callable[[], None]] = {
        "confirmation": lambda: _take_websockets(server, options, loop),
        "limits": lambda: _set_limits(server, options),
        "half-open handshakes": lambda: _take_requests(server, options, loop),
        "user timeout": lambda: _check_user_timeout(server),
        "acknowledgements": lambda: _check_acknowledgements(server),
        "client addresses": lambda: _note_peers(server),
        "drain": GentleShutdown(server, loop, drain, options).install,
        "quiet logs": install_filter,
    }
    capabilities = tuple(Capability(name, _attempt(step)) for name, step in steps.items())
    return HostReport(f"uvicorn {inside.version()}", capabilities, _trusted_proxies(server))


def _attempt(step: Callable[[], None]) -> str | None:
    try:
        step()
    except _MissingError as missing:
        return str(missing)
    except Exception as error:  # noqa: BLE001  an unknown uvicorn may fail in any way, and must not stop the service
        return f"{type(error).__name__}: {error}"
    return None


def _take_websockets(server: inside.Server, options: HostOptions, loop: asyncio.AbstractEventLoop) -> None:
    from .handshake import HandshakeProtocol  # noqa: PLC0415  a uvicorn without its base class is only reported
    from .live import SocketHost  # noqa: PLC0415

    chosen = server.config.ws
    if chosen not in _OWN_CHOICE:
        raise _MissingError(f"uvicorn was told to use --ws {chosen}")
    host = SocketHost(
        loop=loop,
        connections=server.server_state.connections,
        message_size=options.message_size,
        high_water=options.high_water,
        close_timeout=options.close_timeout,
    )
    ours = type(
        "MindVibeWebSocket", (HandshakeProtocol,), {"host": host, "user_timeout": options.socket_user_timeout}
    )
    _check(inside.make_protocol(server, ours, loop), inside.WEBSOCKET_ATTRIBUTES)
    server.config.ws_protocol_class = ours


def _set_limits(server: inside.Server, options: HostOptions) -> None:
    _check(server.config, ("ws_max_size", "ws_per_message_deflate", "timeout_graceful_shutdown"))
    server.config.ws_max_size = options.message_size
    server.config.ws_per_message_deflate = False
    if server.config.timeout_graceful_shutdown is None:
        # Without a limit uvicorn waits for ever on a request that never ends.
        server.config.timeout_graceful_shutdown = options.leftover_timeout + options.close_timeout


def _take_requests(server: inside.Server, options: HostOptions, loop: asyncio.AbstractEventLoop) -> None:
    base: Any = server.config.http_protocol_class
    ours = type(
        f"MindVibe{base.__name__}",
        (RequestHeadLimit, base),
        {
            "half_open": HalfOpen(options.half_open),
            "turnstile": Turnstile(),
            "head_timeout": options.handshake_timeout,
            "head_size": options.head_size,
            "user_timeout": options.request_user_timeout,
        },
    )
    _check(inside.make_protocol(server, ours, loop), inside.REQUEST_ATTRIBUTES)
    server.config.http_protocol_class = ours


def _note_peers(server: inside.Server) -> None:
    _check(server.config, ("loaded_app", "proxy_headers", "forwarded_allow_ips"))
    server.config.loaded_app = PeerNoted(server.config.loaded_app)


def _trusted_proxies(server: inside.Server) -> str | None:
    trusted = getattr(server.config, "forwarded_allow_ips", None)
    if not getattr(server.config, "proxy_headers", False) or not trusted:
        return None
    return trusted if isinstance(trusted, str) else ",".join(trusted)


def _check_user_timeout(server: inside.Server) -> None:
    _check_requests(server)
    if not user_timeout_supported():
        raise _MissingError("this system has no TCP_USER_TIMEOUT")


def _check_acknowledgements(server: inside.Server) -> None:
    _check_requests(server)
    if not acknowledgements_supported():
        raise _MissingError("this system does not tell what a peer has acknowledged")


def _check_requests(server: inside.Server) -> None:
    if not issubclass(server.config.http_protocol_class, RequestHeadLimit):
        raise _MissingError("uvicorn's HTTP protocol is as it was")


def _check(thing: object, names: tuple[str, ...]) -> None:
    absent = inside.missing(thing, names)
    if absent:
        raise _MissingError(f"this uvicorn has no {', '.join(absent)}")

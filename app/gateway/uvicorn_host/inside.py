"""Everything the host touches inside uvicorn, and the check that it is where we expect it.

The two protocol classes are reached into by `handshake` and `requests`; the attributes they use are listed
here and tried on an instance before either is put in place.
"""

import asyncio
import signal
from collections.abc import Iterable
from typing import Any, Protocol, cast

WEBSOCKET_ATTRIBUTES = (
    "connections",
    "conn",
    "disconnected",
    "handshake_complete",
    "handshake_initiated",
    "loop",
    "transport",
    "run_asgi",
    "start_keepalive",
    "receive",
)
REQUEST_ATTRIBUTES = ("connections", "cycle", "loop", "transport")
SERVER_ATTRIBUTES = ("config", "server_state", "should_exit", "force_exit")


class Server(Protocol):
    """The part of `uvicorn.Server` the host uses."""

    config: Any
    server_state: Any
    should_exit: bool
    force_exit: bool


def find_server() -> Server | None:
    """Return the uvicorn server this process runs under; None under any other.

    To be called during lifespan start-up: uvicorn has taken SIGTERM by then, in a single process and in a
    worker alike.
    """
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if type(owner).__module__.partition(".")[0] != "uvicorn" and not _inherits_uvicorn(owner):
        return None
    return cast("Server", owner) if not missing(owner, SERVER_ATTRIBUTES) else None


def _inherits_uvicorn(owner: object) -> bool:
    return any(base.__module__.partition(".")[0] == "uvicorn" for base in type(owner).__mro__)


def missing(thing: object, names: Iterable[str]) -> list[str]:
    """Return those of `names` that `thing` does not have."""
    return [name for name in names if not hasattr(thing, name)]


def version() -> str:
    """Return uvicorn's version, or "unknown"."""
    import uvicorn  # noqa: PLC0415  only where a uvicorn server was found

    return str(getattr(uvicorn, "__version__", "unknown"))


def make_protocol(server: Server, kind: Any, loop: asyncio.AbstractEventLoop) -> object:
    """Make an instance of a protocol class as uvicorn does, to look at it."""
    return kind(config=server.config, server_state=server.server_state, app_state={}, _loop=loop)


def stop_accepting(server: Server) -> None:
    """Close the listening sockets; those already accepted stay."""
    for listener in getattr(server, "servers", ()):
        listener.close()


def request_exit(server: Server, *, force: bool = False) -> None:
    """Let the main loop of uvicorn end. Its own handler would also have the signal raised again."""
    server.force_exit = server.force_exit or force
    server.should_exit = True


def abort_connections(server: Server) -> None:
    """Drop every connection that is left."""
    for connection in list(server.server_state.connections):
        transport = getattr(connection, "transport", None)
        if hasattr(connection, "abort"):
            connection.abort()
        elif transport is not None:
            transport.abort()

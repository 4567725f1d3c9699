"""Who is at the other end of the TCP connection, noted before a proxy's word replaces it.

uvicorn does the replacing itself (`ProxyHeadersMiddleware`, for HTTP and WebSockets alike): where the peer is
one of `--forwarded-allow-ips` (or the variable FORWARDED_ALLOW_IPS; else the machine itself), the client is
the last address of X-Forwarded-For that is not.
"""

from collections.abc import Awaitable
from typing import Any

from app.core.addresses import PEER


class PeerNoted:
    """ASGI around everything uvicorn has put around the application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Serve one scope of HTTP or of a WebSocket."""
        scope.setdefault("extensions", {})[PEER] = scope.get("client")
        served: Awaitable[None] = self._app(scope, receive, send)
        return served

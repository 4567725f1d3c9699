"""The seam between a connection and whatever carries its bytes.

A connection (the part that decides) is a `SocketEvents`; what it decides is done through a `Socket`. Three
sockets exist: `uvicorn_host` (pongs are seen, a stuck peer can be dropped), `asgi_socket` (WebSockets of any
other server) and `sse_socket`. Everything here is synchronous, runs on the event loop and returns at once.
"""

from collections.abc import Callable
from typing import Protocol


class SocketEvents(Protocol):
    """What a connection is told; every call is plain, synchronous, on the loop."""

    def on_text(self, text: str) -> None:
        """Take one complete text message."""

    def on_binary(self, size: int) -> None:
        """Learn that a binary message of `size` bytes arrived; its content is gone."""

    def on_too_large(self) -> None:
        """Learn that a message above the size limit arrived and was thrown away.

        The socket stays open when skipping the message is cheap, and closes with 1009 by itself when not.
        """

    def on_pong(self) -> None:
        """Learn that the outstanding ping was answered: the peer has read everything sent before it."""

    def on_writable(self) -> None:
        """Learn that the socket was not writable and is again."""

    def on_closed(self, code: int | None) -> None:
        """Learn that the socket is gone; called exactly once and last.

        `code` is that of the close frame which ended it, whichever side sent it first (1005 for one without a
        code); None when the connection dropped without any.
        """


class Beside(Protocol):
    """What a transport can tell its client beside the messages."""

    def position(self, token: str) -> None:
        """Tell what the client has once it has got whatever is sent next."""


class Socket(Protocol):
    """What a connection may do; nothing blocks and nothing raises after the close."""

    @property
    def beside(self) -> Beside | None:
        """None where a client learns only what the messages say."""

    @property
    def writable(self) -> bool:
        """False while the transport holds more than its high-water mark."""

    @property
    def confirms(self) -> bool:
        """True where pongs can be seen; False where acceptance by the transport has to do."""

    def send(self, message: bytes) -> None:
        """Send one text message: UTF-8 JSON, encoded once for all connections of a user.

        It may wait for `flush`, as a ping may.
        """

    def ping(self) -> None:
        """Send a ping; the caller keeps at most one outstanding."""

    def flush(self) -> None:
        """Have everything on its way that was sent."""

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame, wait a bounded time for the echo, then drop."""

    def abort(self) -> None:
        """Drop the connection now, with whatever was not yet written."""


class Outgoing(Protocol):
    """What can be seen of, and done to, the TCP connection of an HTTP request."""

    def unacknowledged(self) -> int | None:
        """Return how many bytes the peer's TCP has not acknowledged; None when that cannot be known."""

    def abort(self) -> None:
        """Drop the connection now, with whatever was not yet written."""


OUTGOING = "mindvibe.outgoing"
"""Where the extensions of an ASGI scope of HTTP hold its `Outgoing`."""
EXTENSION = "mindvibe.socket"
"""Where an ASGI scope's extensions hold `attach`, which moves an accepted WebSocket to a `Socket`."""

OpenEvents = Callable[[Socket], SocketEvents]
"""Makes the connection of a socket that has just been accepted."""

"""Plain values the host is installed with."""

from dataclasses import dataclass

HEAD_REFUSED = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)
"""The answer to a head that is longer than allowed, or than the libraries take."""


@dataclass(frozen=True, slots=True)
class HostOptions:
    """Limits and times of the host; durations are seconds, sizes bytes."""

    message_size: int = 64 << 10
    """The largest message taken from a client."""
    high_water: int = 64 << 10
    """Bytes waiting in a socket's transport above which it is not writable."""
    handshake_timeout: float = 10.0
    """How long a TCP connection may take to complete a request head."""
    half_open: int = 1000
    """How many connections may owe a request head at a time."""
    head_size: int = 32 << 10
    """The longest request head."""
    close_timeout: float = 3.0
    """How long a closed socket waits for the peer's echo before it is dropped."""
    drain_timeout: float = 8.0
    """How long the application's drain may take after a signal."""
    leftover_timeout: float = 1.0
    """How long after the drain what is still connected is dropped."""
    request_user_timeout: float = 30.0
    """TCP_USER_TIMEOUT of HTTP (SSE relies on it): how long sent bytes may stay unacknowledged."""
    socket_user_timeout: float = 90.0
    """The same for WebSockets; above what a slow reader is given, since a closed window is silence."""

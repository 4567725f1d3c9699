"""What the service asks of TCP: an option, how much of what was sent is acknowledged, and what is unread."""

import asyncio
import socket
import sys

_TCP = (socket.AF_INET, socket.AF_INET6)


def user_timeout_supported() -> bool:
    """Whether the kernel can bound how long sent bytes stay unacknowledged."""
    return hasattr(socket, "TCP_USER_TIMEOUT")


def set_user_timeout(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Let the kernel drop the connection when sent bytes stay unacknowledged for `seconds`."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in _TCP and user_timeout_supported():
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


def acknowledgements_supported() -> bool:
    """Whether the kernel tells how many bytes of a connection are unacknowledged (tcp(7), SIOCOUTQ)."""
    return sys.platform == "linux"


def unacknowledged(transport: asyncio.WriteTransport) -> int | None:
    """Return how many bytes are still here or not acknowledged by the peer; None when nobody knows."""
    queued = _queued(transport, "TIOCOUTQ")
    return None if queued is None else transport.get_write_buffer_size() + queued


def unread(transport: asyncio.BaseTransport) -> int:
    """Return how many bytes have come and wait to be read; 0 also where nobody knows."""
    return _queued(transport, "FIONREAD") or 0


def _queued(transport: asyncio.BaseTransport, request: str) -> int | None:
    connection = transport.get_extra_info("socket")
    if not acknowledgements_supported() or connection is None or transport.is_closing():
        return None
    import fcntl  # noqa: PLC0415  absent where this is not supported
    import termios  # noqa: PLC0415

    answer = fcntl.ioctl(connection.fileno(), getattr(termios, request), bytes(4))
    return int.from_bytes(answer, sys.byteorder)

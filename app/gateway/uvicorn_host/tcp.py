"""The one TCP option the service sets."""

import asyncio
import socket

_TCP = (socket.AF_INET, socket.AF_INET6)


def user_timeout_supported() -> bool:
    """Whether the kernel can bound how long sent bytes stay unacknowledged."""
    return hasattr(socket, "TCP_USER_TIMEOUT")


def set_user_timeout(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Let the kernel drop the connection when sent bytes stay unacknowledged for `seconds`."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in _TCP and user_timeout_supported():
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))

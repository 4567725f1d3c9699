"""Every way in which a connection ends, and what the client should do then.

1001: reconnect when told; 1011, 1012: with backoff; 4400, 4403 and 4409: not at all; 4401: with a new token;
4408: reconnect and resume; 4429: later.
"""

from enum import IntEnum


class CloseCode(IntEnum):
    """WebSocket close codes (RFC 6455 section 7.4; 4000-4999 are the application's own)."""

    GOING_AWAY = 1001
    INTERNAL_ERROR = 1011
    RESTART = 1012
    BAD_REQUEST = 4400
    UNAUTHENTICATED = 4401
    NOT_ALLOWED = 4403
    TOOK_NOTHING = 4408
    REPLACED = 4409
    TOO_MANY = 4429


DELETED = "this user was deleted"
REMOVED = "this device was removed"
REPLACED = "another connection of this device took over"
"""Reasons that are given in more than one place."""

"""What only the host and its operators may do, by a token of their own."""

import hmac
from enum import Enum, auto

from starlette.requests import Request

from app.auth.credentials import bearers
from app.core.identity import BadCredentials


class Standing(Enum):
    """What the service's token, or its absence, makes of a request."""

    TRUSTED = auto()
    NO_TOKEN = auto()
    WRONG_TOKEN = auto()
    CLOSED = auto()
    """There is no such token, so that nobody may."""
    UNGUARDED = auto()
    """Nothing at all is configured: where the request comes from has to decide."""


class ServiceAccess:
    """Compares the SERVICE_TOKEN; `is_open` says that there is no authentication of users either."""

    def __init__(self, token: str | None, *, is_open: bool) -> None:
        self._token = None if token is None else token.encode()
        self._is_open = is_open

    def standing(self, request: Request) -> Standing:
        """What a request is allowed; takes as long for a token that is nearly right as for any other."""
        if self._token is None:
            return Standing.UNGUARDED if self._is_open else Standing.CLOSED
        try:
            given = bearers(request.scope)
        except BadCredentials:
            return Standing.WRONG_TOKEN
        if not given:
            return Standing.NO_TOKEN
        is_right = len(given) == 1 and hmac.compare_digest(given[0].encode(errors="replace"), self._token)
        return Standing.TRUSTED if is_right else Standing.WRONG_TOKEN

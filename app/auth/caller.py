"""Who makes an HTTP request, for endpoints that act on behalf of a user."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError

from app.auth.doorkeeper import Doorkeeper
from app.core.identity import Denied, Identity, NotAllowed, Unauthenticated
from app.core.reads import Unavailable
from app.http import RequestsPerUser, problem, unavailable

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "No way to give a token."},
    401: {"description": "No token, or a bad one."},
    403: {"description": "Another user's, or revoked."},
    429: {"description": "Too many requests of this user; wait for Retry-After."},
}
"""What any endpoint that asks who calls may answer, as OpenAPI has it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose token was looked at; without `identity` nobody is asked for one."""

    doorkeeper: Doorkeeper
    requests: RequestsPerUser
    identity: Identity | None

    def acts_for(self, user_id: str | None, named_in: Literal["query", "body"] = "query") -> str:
        """The user on whose behalf this is; answers 403 for anybody else's, 422 where nobody says who.

        Whoever is not asked for a token is counted here, and may be answered 429.
        """
        if self.identity is None:
            if user_id is None:
                missing = {"type": "missing", "loc": (named_in, "user_id"), "msg": "Field required"}
                raise RequestValidationError([missing])
            self.requests.count(user_id)
            return user_id
        try:
            return self.identity.acts_for(user_id)
        except NotAllowed as denied:
            raise refusal(denied) from None

    async def still_allowed(self) -> None:
        """Look again, after a while: answers 401 and 403."""
        if self.identity is None:
            return
        if self.identity.expires_at <= time.time():
            raise refusal(Unauthenticated("The token has expired; get another one."))
        try:
            await self.doorkeeper.still_allowed(self.identity)
        except Denied as denied:
            raise refusal(denied) from None
        except Unavailable:
            raise unavailable() from None


@dataclass(frozen=True, slots=True)
class Callers:
    """Who is asked for a token, and how often each user may ask."""

    doorkeeper: Doorkeeper
    requests: RequestsPerUser


def caller(callers: Callable[[], Callers]) -> Callable[[Request], Awaitable[Caller]]:
    """How an endpoint learns who calls; answers 400, 401, 403, 429 and 503."""

    async def who_calls(request: Request) -> Caller:
        try:
            identity = await callers().doorkeeper.identify_by_token(request.scope)
        except Denied as denied:
            raise refusal(denied) from None
        except Unavailable:
            raise unavailable() from None
        requests = callers().requests
        if identity is not None:
            requests.count(identity.user_id)
        return Caller(callers().doorkeeper, requests, identity)

    return who_calls


def refusal(denied: Denied) -> HTTPException:
    """The answer to somebody who may not."""
    match denied:
        case Unauthenticated():
            challenge = {"WWW-Authenticate": 'Bearer realm="realtime", error="invalid_token"'}
            return problem(401, denied.code, denied.message, challenge)
        case NotAllowed():
            return problem(403, denied.code, denied.message)
        case _:
            return problem(400, denied.code, denied.message)

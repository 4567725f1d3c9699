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
from app.http import problem, unavailable

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "No way to give a token."},
    401: {"description": "No token, or a bad one."},
    403: {"description": "Another user's, or revoked."},
}
"""What any endpoint that asks who calls may answer, as OpenAPI has it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose token was looked at; without `identity` nobody is asked for one."""

    doorkeeper: Doorkeeper
    identity: Identity | None

    def acts_for(self, user_id: str | None, named_in: Literal["query", "body"] = "query") -> str:
        """The user on whose behalf this is; answers 403 for anybody else's, 422 where nobody says who."""
        if self.identity is None:
            if user_id is None:
                missing = {"type": "missing", "loc": (named_in, "user_id"), "msg": "Field required"}
                raise RequestValidationError([missing])
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


def caller(doorkeeper: Callable[[], Doorkeeper]) -> Callable[[Request], Awaitable[Caller]]:
    """How an endpoint learns who calls; answers 400, 401, 403 and 503."""

    async def who_calls(request: Request) -> Caller:
        try:
            return Caller(doorkeeper(), await doorkeeper().identify_by_token(request.scope))
        except Denied as denied:
            raise refusal(denied) from None
        except Unavailable:
            raise unavailable() from None

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

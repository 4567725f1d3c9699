"""Who makes an HTTP request, for endpoints that act on behalf of a user."""

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from app.auth.doorkeeper import Doorkeeper
from app.core.identity import Denied, Identity, NotAllowed, Unauthenticated
from app.core.reads import Unavailable
from app.http import REALM, Problem, challenge, problem, unavailable
from app.request_limits import RequestsPerUser

REFUSALS = (400, 401, 403, 422, 429, 503)
"""What any endpoint that asks who calls may answer."""


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


def asks_first(callers: Callable[[], Callers]) -> type[APIRoute]:
    """Routes that find out who calls before anything else of a request is read, its body above all.

    They answer 400, 401, 403, 429 and 503, and hand what they found to `Calling`.
    """

    class AsksFirst(APIRoute):
        """One of those routes."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """How a request is handled."""
            handle = super().get_route_handler()

            async def ask_first(request: Request) -> Response:
                caller = request.state.caller = await _who_calls(callers(), request)
                if caller.identity is None or request.method != "POST":
                    return await handle(request)
                with caller.requests.with_a_body(caller.identity.user_id):
                    return await handle(request)

            return ask_first

    return AsksFirst


async def _who_calls(callers: Callers, request: Request) -> Caller:
    try:
        identity = await callers.doorkeeper.identify_by_token(request.scope)
    except Denied as denied:
        raise refusal(denied) from None
    except Unavailable:
        raise unavailable() from None
    if identity is not None:
        callers.requests.count(identity.user_id)
    return Caller(callers.doorkeeper, callers.requests, identity)


_TOKEN = HTTPBearer(
    scheme_name="token",
    bearerFormat="JWT",
    description="Whose events these are; asked for where the service is configured to.",
    auto_error=False,
)


def _found(request: Request, _: Annotated[object, Security(_TOKEN)]) -> Caller:
    found: Caller = request.state.caller
    return found


Calling = Annotated[Caller, Depends(_found)]
"""Who calls an endpoint on such a route."""


def refusal(denied: Denied) -> Problem:
    """The answer to somebody who may not."""
    match denied:
        case Unauthenticated():
            headers = challenge(REALM, gave_nothing=denied.gave_nothing)
            return problem(401, denied.code, denied.message, headers)
        case NotAllowed():
            return problem(403, denied.code, denied.message)
        case _:
            return problem(400, denied.code, denied.message)

"""`POST /realtime/tickets`: a ticket for a token, for clients that cannot send one where they connect."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from app.auth.caller import REFUSALS, Callers, Calling, asks_first
from app.auth.credentials import COOKIE
from app.auth.tickets import LIFETIME, Tickets
from app.core.reads import Unavailable
from app.http import problem, responses, unavailable


@dataclass(frozen=True, slots=True)
class Offices:
    """What the endpoint is made of; `secure`: cookies go back over TLS only, however they are asked for."""

    tickets: Tickets
    callers: Callers
    secure: bool


class TicketAnswer(BaseModel):
    """A ticket, and for how long it is good."""

    ticket: str | None = Field(description="Give it as `?ticket=`, once; null where it came as a cookie.")
    expires_in_ms: int


def router(offices: Callable[[], Offices], *, cookie_path: str) -> APIRouter:
    """The tickets endpoint; a cookie goes back to `cookie_path` only."""
    routes = APIRouter(
        prefix="/realtime/tickets",
        tags=["authentication"],
        route_class=asks_first(lambda: offices().callers),
    )

    @routes.post("", status_code=201, responses=responses(*REFUSALS, 409))
    async def issue(
        request: Request,
        response: Response,
        calling: Calling,
        form: Annotated[
            Literal["cookie"] | None,
            Query(alias="as", description="For EventSource: an HttpOnly cookie for as long as the token."),
        ] = None,
    ) -> TicketAnswer:
        """Get a ticket for the token of the `Authorization` header: for 30 seconds and one connection."""
        if calling.identity is None:
            message = "This service asks for no token, so there are no tickets; connect with ?user_id= alone."
            raise problem(409, "not_needed", message)
        response.headers["Cache-Control"] = "no-store"
        try:
            if form is None:
                ticket = await offices().tickets.issue(calling.identity)
                return TicketAnswer(ticket=ticket, expires_in_ms=int(LIFETIME * 1000))
            ticket, left = await offices().tickets.issue_cookie(calling.identity)
        except Unavailable:
            raise unavailable() from None
        response.set_cookie(
            COOKIE,
            ticket,
            max_age=int(left),
            path=request.scope.get("root_path", "") + cookie_path,
            secure=offices().secure or request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return TicketAnswer(ticket=None, expires_in_ms=int(left * 1000))

    return routes

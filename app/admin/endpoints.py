"""`/realtime/dead-letters`: what was given up, listed and redriven."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Security
from fastapi.security import HTTPBearer

from app.admin.access import operators_only
from app.admin.letters import DeadLetters, Redriven
from app.admin.schemas import MOST_LETTERS, Letter, RedrivenAll
from app.auth.service import ServiceAccess
from app.core.reads import Unavailable
from app.http import RowId, UserId, problem, responses, unavailable

_MOST = 1 << 63
_SERVICE_TOKEN = HTTPBearer(
    scheme_name="service token", description="The operators' own: SERVICE_TOKEN.", auto_error=False
)


def router(letters: Callable[[], DeadLetters], access: Callable[[], ServiceAccess]) -> APIRouter:
    """The operators' endpoints on top of the dead letters."""
    routes = APIRouter(
        prefix="/realtime/dead-letters",
        tags=["operators"],
        dependencies=[Depends(operators_only(access)), Security(_SERVICE_TOKEN)],
        responses=responses(401, 403, 422, 503),
    )

    @routes.get("")
    async def list_letters(
        user_id: Annotated[UserId | None, Query()] = None,
        after_id: Annotated[int, Query(ge=0, lt=_MOST, description="The last `id` of the page before.")] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_LETTERS)] = 100,
    ) -> list[Letter]:
        """List dead letters by their ids, of one user or of all."""
        try:
            return [Letter.model_validate(one) for one in await letters().page(user_id, after_id, limit)]
        except Unavailable:
            raise unavailable() from None

    @routes.post("/{id}/redrive", status_code=204, responses=responses(404, 409))
    async def redrive(letter_id: Annotated[RowId, Path(alias="id")]) -> None:
        """Set what a dead letter is about on its way again; the letter goes."""
        try:
            done = await letters().redrive(letter_id)
        except Unavailable:
            raise unavailable() from None
        if done is Redriven.NO_SUCH_LETTER:
            raise problem(404, "no_such_letter", "There is no such dead letter; it may have been redriven.")
        if done is Redriven.IMPOSSIBLE:
            message = (
                "This cannot be sent again: the event, user or device is gone, a newer event took its place,"
                " or the user has left its room. The letter is kept."
            )
            raise problem(409, "not_redrivable", message)

    @routes.post("/redrive")
    async def redrive_all(user_id: Annotated[UserId, Query()]) -> RedrivenAll:
        """Redrive what can be of a user, at most a thousand dead letters."""
        try:
            return RedrivenAll(redriven=await letters().redrive_all(user_id))
        except Unavailable:
            raise unavailable() from None

    return routes

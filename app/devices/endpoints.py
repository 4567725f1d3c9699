"""`/realtime/devices`: where a push token or an installation becomes a device."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.auth.caller import REFUSALS, Callers, Calling, asks_first
from app.core.reads import Unavailable
from app.devices.registry import Registry
from app.http import Asked, DeviceToken, Moment, RowId, UserId, problem, responses, unavailable
from app.store.devices import UnknownUser


class Registration(Asked):
    """A device as it introduces itself."""

    user_id: UserId | None = Field(default=None, description="Whose token it is, where one is asked for.")
    device_token: DeviceToken
    platform: Literal["ios", "android", "web"]
    previous_token: DeviceToken | None = Field(
        default=None, description="The token this device had before; its position stays."
    )


class DeviceAnswer(BaseModel):
    """A device as its user sees it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    user_id: str
    platform: str
    last_active: Moment
    created_at: Moment


def router(registry: Callable[[], Registry], callers: Callable[[], Callers]) -> APIRouter:
    """The devices endpoints on top of a registry."""
    routes = APIRouter(prefix="/realtime/devices", tags=["devices"], route_class=asks_first(callers))
    refreshed: dict[int | str, dict[str, Any]] = {
        200: {"model": DeviceAnswer, "description": "The device is refreshed."}
    }

    @routes.post("", status_code=201, responses=refreshed | responses(*REFUSALS, 404))
    async def register(device: Registration, response: Response, calling: Calling) -> DeviceAnswer:
        """Register a device (201) or refresh it (200)."""
        user_id = calling.acts_for(device.user_id, "body")
        try:
            row, is_new = await registry().register(
                user_id, device.device_token, device.platform, device.previous_token
            )
        except UnknownUser:
            raise problem(404, "no_such_user", "No such user; a device belongs to a row of users.") from None
        except Unavailable:
            raise unavailable() from None
        response.status_code = 201 if is_new else 200
        return DeviceAnswer.model_validate(row)

    @routes.get("", responses=responses(*REFUSALS))
    async def list_devices(
        calling: Calling, user_id: Annotated[UserId | None, Query()] = None
    ) -> list[DeviceAnswer]:
        """List a user's devices, oldest first."""
        of_user = calling.acts_for(user_id)
        try:
            return [DeviceAnswer.model_validate(row) for row in await registry().of_user(of_user)]
        except Unavailable:
            raise unavailable() from None

    @routes.delete("/{device_id}", status_code=204, responses=responses(*REFUSALS, 404))
    async def remove(
        calling: Calling,
        device_id: Annotated[RowId, Path()],
        user_id: Annotated[UserId | None, Query()] = None,
    ) -> None:
        """Remove a device and close its connections."""
        of_user = calling.acts_for(user_id)
        try:
            found = await registry().remove(of_user, device_id)
        except Unavailable:
            raise unavailable() from None
        if not found:
            raise problem(404, "no_such_device", "This user has no such device.")

    return routes

"""`/realtime/devices`: where a push token or an installation becomes a device."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.auth.caller import REFUSALS, Caller, Callers, caller
from app.core.reads import Unavailable
from app.devices.registry import Registry
from app.http import DeviceToken, UserId, unavailable
from app.store.devices import UnknownUser


class Registration(BaseModel):
    """A device as it introduces itself."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

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
    last_active: datetime
    created_at: datetime


def router(registry: Callable[[], Registry], callers: Callable[[], Callers]) -> APIRouter:
    """The devices endpoints on top of a registry."""
    who_calls = Depends(caller(callers))
    routes = APIRouter(prefix="/realtime/devices", tags=["devices"], responses=REFUSALS)

    @routes.post("", status_code=201, responses={200: {"model": DeviceAnswer}, 404: {}, 503: {}})
    async def register(
        device: Registration, response: Response, calling: Annotated[Caller, who_calls]
    ) -> DeviceAnswer:
        """Register a device (201) or refresh it (200)."""
        user_id = calling.acts_for(device.user_id, "body")
        try:
            row, is_new = await registry().register(
                user_id, device.device_token, device.platform, device.previous_token
            )
        except UnknownUser:
            raise HTTPException(404, "No such user; a device belongs to a row of users.") from None
        except Unavailable:
            raise unavailable() from None
        response.status_code = 201 if is_new else 200
        return DeviceAnswer.model_validate(row)

    @routes.get("", responses={503: {}})
    async def list_devices(
        calling: Annotated[Caller, who_calls], user_id: Annotated[UserId | None, Query()] = None
    ) -> list[DeviceAnswer]:
        """List a user's devices, oldest first."""
        of_user = calling.acts_for(user_id)
        try:
            return [DeviceAnswer.model_validate(row) for row in await registry().of_user(of_user)]
        except Unavailable:
            raise unavailable() from None

    @routes.delete("/{device_id}", status_code=204, responses={404: {}, 503: {}})
    async def remove(
        calling: Annotated[Caller, who_calls],
        device_id: Annotated[int, Path(ge=1, lt=1 << 63)],
        user_id: Annotated[UserId | None, Query()] = None,
    ) -> None:
        """Remove a device and close its connections."""
        of_user = calling.acts_for(user_id)
        try:
            found = await registry().remove(of_user, device_id)
        except Unavailable:
            raise unavailable() from None
        if not found:
            raise HTTPException(404, "This user has no such device.")

    return routes

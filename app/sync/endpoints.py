"""`/realtime/sync`: read what is new, acknowledge it, upload actions."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from app.auth.caller import REFUSALS, Caller, Callers, Calling, asks_first
from app.core.reads import Interrupted, Unavailable, UserErased
from app.core.token import Token, TokenError, decode
from app.core.wishes import Wishes
from app.http import RETRY_AFTER, DeviceToken, UserId, problem, responses, unavailable
from app.store.sync import UserGone
from app.sync.acks import Acks, PositionLost
from app.sync.polling import LONGEST_WAIT, Asked, Polling
from app.sync.ports import Devices
from app.sync.reading import MOST_MESSAGES, Answer
from app.sync.schemas import Ack, Acknowledged, ActionResult, Synced, Upload, Uploaded
from app.sync.uploads import Uploads
from app.sync.waiters import TooManyWaiting
from app.sync.who import UnknownDevice, look_up


@dataclass(frozen=True, slots=True)
class Sync:
    """What the endpoints are made of."""

    devices: Devices
    polling: Polling
    acks: Acks
    uploads: Uploads


def router(sync: Callable[[], Sync], callers: Callable[[], Callers]) -> APIRouter:
    """The sync endpoints."""
    routes = APIRouter(prefix="/realtime/sync", tags=["sync"], route_class=asks_first(callers))

    @routes.get("", response_model=Synced, responses=responses(*REFUSALS, 404))
    async def read(
        request: Request,
        calling: Calling,
        user_id: Annotated[UserId | None, Query()] = None,
        device_token: Annotated[DeviceToken | None, Query()] = None,
        x_device_token: Annotated[DeviceToken | None, Header()] = None,
        position: Annotated[str | None, Query(description="The `next` of the last answer.")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_MESSAGES)] = MOST_MESSAGES,
        wait: Annotated[
            float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait where nothing is new.")
        ] = 0.0,
    ) -> Response:
        """Get what is new after a position; without one, what the device has not had. Changes nothing."""
        device = device_token or x_device_token
        asked = Asked(calling.acts_for(user_id), device, Wishes.parse(position), limit)
        async with _problems_told(sync().devices, calling, device):
            if wait:
                answer = await sync().polling.answer_within(
                    wait, asked, request.receive, calling.still_allowed
                )
                await calling.still_allowed()
            else:
                answer = await sync().polling.answer(asked)
        return Response(
            _encoded(answer), media_type="application/json", headers={"Cache-Control": "no-store"}
        )

    @routes.post("/ack", responses=responses(*REFUSALS, 404, 409))
    async def acknowledge(ack: Ack, calling: Calling) -> Acknowledged:
        """Say what was processed: everything up to `position`, and the messages of `ids`."""
        user_id = calling.acts_for(ack.user_id, "body")
        token = None if ack.position is None else _token(ack.position)
        async with _problems_told(sync().devices, calling, ack.device_token):
            who = await look_up(sync().devices, user_id, ack.device_token)
            return Acknowledged(marked=await sync().acks.take(who, token, ack.ids, ack.epoch))

    @routes.post("", responses=responses(*REFUSALS, 404))
    async def upload(upload: Upload, calling: Calling) -> Uploaded:
        """Upload actions for the user's other devices and the application; safe to be repeated."""
        user_id = calling.acts_for(upload.user_id, "body")
        async with _problems_told(sync().devices, calling, upload.device_token):
            who = await look_up(sync().devices, user_id, upload.device_token)
            if who.device_id is None:
                raise UnknownDevice
            results = await sync().uploads.take(user_id, who.device_id, upload.actions)
        return Uploaded(results=[ActionResult.model_validate(result) for result in results])

    return routes


@asynccontextmanager
async def _problems_told(devices: Devices, calling: Caller, device_token: str | None) -> AsyncIterator[None]:
    """Answer what can go wrong."""
    try:
        yield
    except (UnknownDevice, UserGone) as error:
        if isinstance(error, UnknownDevice) and await _is_anothers(devices, calling, device_token):
            message = "This device is registered for another user; register it for yours."
            raise problem(403, "not_allowed", message) from None
        message = "This device is not registered for this user; register it with POST /realtime/devices."
        raise problem(404, "unknown_device", message) from None
    except UserErased:
        raise problem(403, "not_allowed", "This user was deleted.") from None
    except PositionLost as lost:
        raise problem(409, lost.why, "This position cannot be acknowledged; read again.") from None
    except TooManyWaiting as error:
        status = 429 if error.of_user else 503
        message = "Too many requests wait already; ask again without wait, or later."
        raise problem(status, "too_many_waiting", message, RETRY_AFTER) from None
    except (Unavailable, Interrupted):
        raise unavailable() from None


async def _is_anothers(devices: Devices, calling: Caller, device_token: str | None) -> bool:
    """Whether a device that is not the caller's has somebody else; nobody is told who has no token."""
    if calling.identity is None or device_token is None:
        return False
    try:
        return await devices.is_registered(device_token)
    except Unavailable:
        raise unavailable() from None


def _token(text: str) -> Token:
    try:
        return decode(text)
    except TokenError:
        raise problem(422, "malformed", "This is not a position; give the `next` of an answer.") from None


def _encoded(answer: Answer) -> bytes:
    """Messages are encoded already, as a WebSocket carries them."""
    rest = {
        "next": answer.next.text(),
        "more": answer.more,
        "resumed": answer.lost is None,
        "reason": answer.lost,
        "epoch": answer.epoch,
    }
    messages = b",".join(message.body for message in (*answer.messages, *answer.again))
    return b'{"messages":[' + messages + b"]," + json.dumps(rest).encode()[1:]

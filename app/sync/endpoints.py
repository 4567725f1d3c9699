"""`/realtime/sync`: read what is new, acknowledge it, upload actions."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from app.core.position import Position
from app.core.reads import Interrupted, Unavailable, UserErased
from app.core.token import TokenError, decode, encode
from app.core.wishes import Wishes
from app.http import RETRY_AFTER, DeviceToken, UserId, problem, unavailable
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


def router(sync: Callable[[], Sync]) -> APIRouter:
    """The sync endpoints."""
    routes = APIRouter(prefix="/realtime/sync", tags=["sync"])

    @routes.get("", response_model=Synced, responses={403: {}, 404: {}, 429: {}, 503: {}})
    async def read(
        request: Request,
        user_id: Annotated[UserId, Query()],
        device_token: Annotated[DeviceToken | None, Query()] = None,
        x_device_token: Annotated[DeviceToken | None, Header()] = None,
        position: Annotated[str | None, Query(description="The `next` of the last answer.")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_MESSAGES)] = MOST_MESSAGES,
        wait: Annotated[
            float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait where nothing is new.")
        ] = 0.0,
    ) -> Response:
        """Get what is new after a position; without one, what the device has not had. Changes nothing."""
        asked = Asked(user_id, device_token or x_device_token, Wishes.parse(position), limit)
        with _problems_told():
            if wait:
                answer = await sync().polling.answer_within(wait, asked, request.receive)
            else:
                answer = await sync().polling.answer(asked)
        return Response(
            _encoded(answer), media_type="application/json", headers={"Cache-Control": "no-store"}
        )

    @routes.post("/ack", responses={403: {}, 404: {}, 409: {}, 503: {}})
    async def acknowledge(ack: Ack) -> Acknowledged:
        """Say what was processed: everything up to `position`, and the messages of `ids`."""
        position = None if ack.position is None else _position(ack.position)
        with _problems_told():
            who = await look_up(sync().devices, ack.user_id, ack.device_token)
            return Acknowledged(marked=await sync().acks.take(who, position, ack.ids))

    @routes.post("", responses={404: {}, 503: {}})
    async def upload(upload: Upload) -> Uploaded:
        """Upload actions for the user's other devices and the application; safe to be repeated."""
        with _problems_told():
            who = await look_up(sync().devices, upload.user_id, upload.device_token)
            if who.device_id is None:
                raise UnknownDevice
            results = await sync().uploads.take(upload.user_id, who.device_id, upload.actions)
        return Uploaded(results=[ActionResult.model_validate(result) for result in results])

    return routes


@contextmanager
def _problems_told() -> Iterator[None]:
    """Answer what can go wrong."""
    try:
        yield
    except (UnknownDevice, UserGone):
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


def _position(token: str) -> Position:
    try:
        return decode(token)
    except TokenError:
        raise problem(422, "malformed", "This is not a position; give the `next` of an answer.") from None


def _encoded(answer: Answer) -> bytes:
    """Messages are encoded already, as a WebSocket carries them."""
    rest = {
        "next": encode(answer.next),
        "more": answer.more,
        "resumed": answer.lost is None,
        "reason": answer.lost,
        "epoch": answer.epoch,
    }
    messages = b",".join(message.body for message in (*answer.messages, *answer.again))
    return b'{"messages":[' + messages + b"]," + json.dumps(rest).encode()[1:]

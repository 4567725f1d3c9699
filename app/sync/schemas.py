"""What the sync endpoints take and answer."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.core.position import Lost
from app.http import Asked, DeviceToken, RowId, UserId
from app.sync.actions import LARGEST_PAYLOAD
from app.sync.reading import MOST_MESSAGES

MOST_ACTIONS = 100
LONGEST_EPOCH = 64
WHOSE = "Whose token it is, where one is asked for."


PositionText = Annotated[str, WithJsonSchema({"type": "string", "format": "position"})]


class Synced(BaseModel):
    """Messages as a WebSocket carries them, in order."""

    messages: list[dict[str, Any]]
    next: str = Field(description="Give it as `position` next time, when the messages are processed.")
    more: bool = Field(description="Whether another call gets more at once.")
    resumed: bool = Field(description="Whether this goes on exactly where the position was.")
    reason: Lost | None = Field(description="Why not; what comes is in the protocol.")
    epoch: str = Field(description="Within one epoch an `id` names one message.")


class Ack(Asked):
    """What the client has processed: everything up to `position`, and the messages of `ids`."""

    user_id: UserId | None = Field(default=None, description=WHOSE)
    device_token: DeviceToken | None = None
    position: PositionText | None = Field(default=None, description="The `next` of an answer.")
    ids: Annotated[list[RowId], Field(max_length=MOST_MESSAGES)] = Field(default_factory=list)
    epoch: Annotated[str, Field(max_length=LONGEST_EPOCH)] | None = Field(
        default=None,
        description="The one of the answer that had these `ids`; of an earlier one they mark nothing.",
    )


class Acknowledged(BaseModel):
    """How many rows were marked; none when the ack is repeated."""

    marked: int


class Upload(Asked):
    """What a device did while it was away."""

    user_id: UserId | None = Field(default=None, description=WHOSE)
    device_token: DeviceToken
    actions: Annotated[list[Any], Field(max_length=MOST_ACTIONS)] = Field(
        description="Each is `{key, action_type, payload}`: a key of the client's own, which makes it safe "
        f"to upload again, and a JSON object of at most {LARGEST_PAYLOAD} bytes.",
        examples=[[{"key": "0b5c", "action_type": "entry_read", "payload": {"entry_id": "e1"}}]],
    )


class ActionResult(BaseModel):
    """What became of one action."""

    model_config = ConfigDict(from_attributes=True)

    key: str | None = Field(description="As uploaded; null where there was none that can be told again.")
    status: Literal["accepted", "duplicate", "invalid"]
    reason: str | None = Field(description="What is wrong with an invalid one.")


class Uploaded(BaseModel):
    """A result for each action, in their order."""

    results: list[ActionResult]

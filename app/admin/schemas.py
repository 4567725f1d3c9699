"""What the operators' endpoints answer."""

from pydantic import BaseModel, ConfigDict, Field

from app.http import Moment

MOST_LETTERS = 1000


class Letter(BaseModel):
    """A dead letter; never what the event says."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    event_id: int
    user_id: str | None
    device_id: int | None = Field(description="Null: given up for the whole user.")
    reason: str = Field(description="`expired`, `nacked` or `unacked`.")
    detail: str | None = Field(description="What the client said of it.")
    attempts: int
    dead_at: Moment
    event_type: str | None = Field(description="`sync` for a row of sync_queue; null when the row is gone.")
    created_at: Moment | None
    is_redrivable: bool


class RedrivenAll(BaseModel):
    """How many dead letters were redriven; call again until none was."""

    redriven: int

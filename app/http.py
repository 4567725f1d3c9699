"""What the HTTP endpoints share: values, and how somebody is told what went wrong.

Every error has one body, whoever tells it: that of the `error` message of a WebSocket.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import HTTPException, Response
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.core import messages

# PostgreSQL's text holds no NUL.
UserId = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]
DeviceToken = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]
RowId = Annotated[
    int,
    Field(ge=1, lt=1 << 63),
    # In OpenAPI a bound is a floating-point number, which cannot be this one.
    WithJsonSchema({"type": "integer", "format": "int64", "minimum": 1}),
]
Moment = Annotated[
    datetime,
    PlainSerializer(messages.timestamp, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""A time as messages tell it."""

RETRY_AFTER = {"Retry-After": "5"}
MOST_PROBLEMS = 20
"""Of those of one request that are told; who sends a million of them is told no more."""
MOST_KEYS = 100
"""Of a body, known or not."""
LONGEST_NAME = 100
"""Characters that are told of a name that somebody sent."""


class Asked(BaseModel):
    """The body of a request: nothing but what is asked for, and nothing of it in an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _has_few_keys(cls, body: Any) -> Any:
        """Refuse very many unknown keys at once: a report of each takes a hundred times what it sends."""
        if isinstance(body, dict) and len(body) > MOST_KEYS:
            raise PydanticCustomError("too_many_keys", "An object of so many keys is not taken here.")
        return body


class ErrorAnswer(BaseModel):
    """Why a request was not served."""

    type: Literal["error"]
    code: str = Field(description="For programs.")
    message: str = Field(description="For people.")


class WrongPart(BaseModel):
    """A part of a request that cannot be taken."""

    where: list[str | int] = Field(examples=[["body", "platform"]])
    message: str


class InvalidAnswer(ErrorAnswer):
    """Why a request was not understood."""

    problems: list[WrongPart] | None = Field(
        default=None, description=f"What is wrong with which part; the first {MOST_PROBLEMS}."
    )


class Problem(HTTPException):
    """An answer that a program tells from others by `code`, and a person by `message`."""

    def __init__(
        self, status_code: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status_code, message, headers)
        self.code = code
        self.message = message


def problem(status_code: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Problem:
    """What to raise for an answer with this code and message."""
    return Problem(status_code, code, message, headers)


def unavailable() -> Problem:
    """The answer while the database is away."""
    return problem(503, "unavailable", "The database cannot be reached just now; try again.", RETRY_AFTER)


def error_answer(told: Problem) -> Response:
    """The response that tells a problem."""
    return _answer(told.status_code, messages.error(told.code, told.message), told.headers)


def invalid_answer(wrong: Sequence[Mapping[str, Any]]) -> Response:
    """Answer 422; `wrong` are errors of pydantic's, of which nothing is told that repeats the request."""
    problems = [
        {
            "where": [one[:LONGEST_NAME] if isinstance(one, str) else one for one in each["loc"]],
            "message": each["msg"],
        }
        for each in wrong[:MOST_PROBLEMS]
    ]
    error = messages.error("malformed", "The request cannot be taken; see problems.")
    return _answer(422, error[:-1] + b',"problems":' + json.dumps(problems).encode() + b"}", None)


def _answer(status: int, body: bytes, headers: Mapping[str, str] | None) -> Response:
    return Response(body, status, headers, media_type="application/json")


def path_of(scope: Mapping[str, Any]) -> str:
    """The path that an ASGI scope asks for, without what a proxy in front has taken off it (`root_path`)."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These errors as OpenAPI has them, and those that any request may be answered with."""
    told = {status: _DESCRIPTIONS[status] for status in (*statuses, *_ANY_REQUEST)}
    return {
        status: {"description": text, "model": InvalidAnswer if status == 422 else ErrorAnswer}
        for status, text in sorted(told.items())
    }


_ANY_REQUEST = (408, 413, 414)
_DESCRIPTIONS = {
    400: "A body that cannot be read, or no way to give a token.",
    401: "No token, or a bad one.",
    403: "Another user's, revoked, or for others.",
    404: "There is no such thing.",
    408: "The body is too slow.",
    409: "Not as things are.",
    413: "The body is too large.",
    414: "The URL is too long.",
    422: "A part of the request cannot be taken.",
    429: "Too many requests of this user; wait for Retry-After.",
    503: "Not just now; wait for Retry-After.",
}


REALM = "realtime"
"""Of the tokens of users."""


def challenge(realm: str, *, gave_nothing: bool) -> dict[str, str]:
    """The header of a 401; who gave nothing is told of no error (RFC 6750, section 3.1)."""
    error = "" if gave_nothing else ', error="invalid_token"'
    return {"WWW-Authenticate": f'Bearer realm="{realm}"{error}'}

"""What a session asks its shell to do, in order."""

from dataclasses import dataclass, field
from typing import NamedTuple

from app.core.close_codes import CloseCode
from app.core.inbound import Rejected
from app.core.messages import Message, RowKey
from app.core.position import Position


class Send(NamedTuple):
    """Send this event or sync row.

    `position` is what the client has with it, if it asked for that; `number` its sequence number and
    `again` whether it has been sent before, if the client acks.
    """

    message: Message
    position: Position | None = None
    number: int | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the client's heartbeat with `pong`."""


@dataclass(frozen=True, slots=True)
class Complain:
    """Tell the client what was wrong with its message."""

    problem: Rejected


@dataclass(frozen=True, slots=True)
class SendPing:
    """Send a ping; its pong confirms everything sent before it."""


@dataclass(frozen=True, slots=True)
class StartRead:
    """Read what `position` has not seen, and call `begin_read`.

    Without a position only what is undelivered is owed. `with_undelivered`: also what is
    undelivered although the position has it, once per connection.
    """

    position: Position | None
    with_undelivered: bool


@dataclass(frozen=True, slots=True)
class NextPage:
    """Fetch the next page of the read under way, and call `page`."""


class Confirmed(NamedTuple):
    """These rows have reached the user; `position` is what the reader has now, if it moved.

    `redelivered` are those among them that were marked as sent again.
    """

    events: tuple[RowKey, ...]
    sync_rows: tuple[RowKey, ...]
    position: Position | None
    redelivered: tuple[RowKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The client has this row and cannot process it: it is to be sent again later."""

    message: Message
    reason: str | None


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Look at the client's new token, and call `renewed` or `not_renewed`."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Tell the client that its new token was taken, and is for so many seconds."""

    expires_in: float


@dataclass(frozen=True, slots=True)
class ExpiresSoon:
    """Tell the client that its token is taken for so many seconds more."""

    expires_in: float


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection with this code; everything in flight stays unconfirmed."""

    code: CloseCode
    reason: str


Action = (
    Send
    | Answer
    | Complain
    | SendPing
    | StartRead
    | NextPage
    | Confirmed
    | Refused
    | Authenticate
    | Authenticated
    | ExpiresSoon
    | Close
)

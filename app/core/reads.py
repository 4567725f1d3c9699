"""What a read of the outbox hands over, and how it can fail."""

from dataclasses import dataclass

from app.core.messages import Message
from app.core.position import Lost, Pass


@dataclass(frozen=True, slots=True)
class Page:
    """The next rows of a read, in id order; `more` when others follow.

    `lost`: since the read began rows were removed that it had not come to.
    """

    messages: list[Message]
    more: bool
    lost: Lost | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A read that has begun: the pass it makes and its first page.

    `partial`: it only ends the pass in which the position had been cut. `lost` says why the
    position could not be resumed exactly. `revoked_before`: tokens of this user that were issued before that
    time, in unix seconds, are taken no longer. `generation`: how often the device that reads has connected,
    None where it is the user's no longer.
    """

    first: Pass
    page: Page
    partial: bool = False
    lost: Lost | None = None
    revoked_before: float | None = None
    generation: int | None = None


class Interrupted(Exception):  # noqa: N818 - an event of the database's life, not a mistake
    """The database restarted in mid-read; begin again from what was sent."""


class Unavailable(Exception):  # noqa: N818 - as above
    """The database cannot be reached just now; the same read can be tried again."""


class UserErased(Exception):  # noqa: N818 - as above
    """The user was deleted; nothing of theirs is delivered any more."""

"""What the jobs need of the rest of the service."""

from collections.abc import Container, Mapping, Sequence
from typing import Protocol

from app.core.messages import Message, RowKey
from app.core.position import Pass
from app.core.session import Session


class Connection(Protocol):
    """One live connection of one user."""

    @property
    def id(self) -> int:
        """Its number in this process."""

    @property
    def device_id(self) -> int | None:
        """The device it belongs to, if any."""

    @property
    def session(self) -> Session:
        """What it has and is owed."""


class Hub(Protocol):
    """Who is connected to this process."""

    @property
    def users(self) -> Mapping[str, Sequence[Connection]]:
        """Connections by user; not to be changed."""

    @property
    def routed(self) -> Pass | None:
        """The last pass of the tail of which every row has been routed."""

    def redeliver(self, user_id: str, message: Message) -> None:
        """Send a stale row again to every connection of a user that has not got it on its way."""

    def redeliver_to(self, user_id: str, numbers: Container[int], message: Message) -> None:
        """Send a row again to those connections of a user that have these ids."""


class Receipts(Protocol):
    """What has reached its user."""

    def is_unwritten(self, row: RowKey) -> bool:
        """Whether a row has reached its user although the table does not say so yet."""

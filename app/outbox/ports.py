"""What the outbox needs of the rest: somewhere to put rows, and someone to tell how busy it is."""

from collections.abc import Container
from dataclasses import dataclass
from typing import Protocol

from app.core.messages import Message
from app.core.position import Pass


@dataclass(frozen=True, slots=True)
class Command:
    """A row of `realtime_commands`: something every process must do to a user's connections."""

    kind: str
    user_id: str | None
    device_id: int | None


class Outlet(Protocol):
    """Where the tail puts what it found; nothing here may wait."""

    @property
    def users(self) -> Container[str]:
        """Users with a connection to this process."""

    def route(self, user_id: str, messages: list[Message], found_by: Pass) -> None:
        """Hand rows, in id order, to every connection of a user."""

    def obey(self, command: Command) -> None:
        """Carry out a command."""

    def completed(self, done: Pass) -> None:
        """Note that every row of a pass has been routed."""

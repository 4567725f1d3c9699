"""What the outbox needs of the rest: somewhere to put rows, and someone to tell how busy it is."""

from collections.abc import Container
from typing import Protocol

from app.core.commands import Command
from app.core.messages import Message
from app.core.position import Pass


class Outlet(Protocol):
    """Where the tail puts what it found; nothing here may wait."""

    @property
    def users(self) -> Container[str]:
        """Users with a connection to this process."""

    def route(self, user_id: str, messages: list[Message], found_by: Pass) -> None:
        """Hand rows, in id order, to every connection of a user."""

    def obey(self, command: Command) -> None:
        """Carry out a command."""

    def overtaken(self) -> None:
        """Note that rows may be gone that were never routed: retention has passed the reader."""

    def completed(self, done: Pass) -> None:
        """Note that every row of a pass has been routed."""

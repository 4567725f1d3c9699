"""What the tail finds, put to those who take rows and told to those who wait for any."""

from collections.abc import Collection, Container
from dataclasses import dataclass
from typing import Protocol

from app.core.commands import Command
from app.core.messages import Message
from app.core.position import Pass
from app.outbox.ports import Outlet


class Waiting(Protocol):
    """Those who read by themselves once they are told that there is something."""

    @property
    def users(self) -> Collection[str]:
        """Users for whom somebody waits."""

    def wake(self, user_id: str) -> None:
        """Tell whoever waits for this user."""


class FanOut:
    """An outlet in front of another; while nobody waits it is the other."""

    def __init__(self, taking: Outlet, waiting: Waiting) -> None:
        self._taking = taking
        self._waiting = waiting

    @property
    def users(self) -> Container[str]:
        """Users whose rows somebody takes, or is to be told of."""
        taking, waiting = self._taking.users, self._waiting.users
        return _Either(taking, waiting) if waiting else taking

    def route(self, user_id: str, messages: list[Message], found_by: Pass) -> None:
        """Hand rows on, and tell."""
        self._taking.route(user_id, messages, found_by)
        self._waiting.wake(user_id)

    def obey(self, command: Command) -> None:
        """Hand a command on, and let those whom it can concern look again."""
        self._taking.obey(command)
        if command.user_id is not None:
            self._waiting.wake(command.user_id)

    def overtaken(self) -> None:
        """Hand that on; who waits reads from a position of his own, and is told."""
        self._taking.overtaken()

    def completed(self, done: Pass) -> None:
        """Hand on that every row of a pass has been routed."""
        self._taking.completed(done)


@dataclass(frozen=True, slots=True)
class _Either:
    """Users of one or of the other, as they are now."""

    one: Container[str]
    other: Container[str]

    def __contains__(self, user_id: object) -> bool:
        return user_id in self.one or user_id in self.other

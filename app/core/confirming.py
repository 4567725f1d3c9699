"""What was sent on one connection and is not confirmed: what every way of confirming it has in common.

by a pong   `flight.py`     the peer has read everything sent before the ping
by time     `unproven.py`   the peer's transport took it, and the stream lived on for a while
by an ack   `acks.py`       the client says which it has processed, or cannot process
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from enum import Enum, auto

from app.core import inbound
from app.core.actions import Action, Confirmed
from app.core.messages import Message
from app.core.position import Pass
from app.core.queue import Entry


class Due(Enum):
    """What time asks of a connection."""

    ASK = auto()
    SEND_AGAIN = auto()
    TOOK_NOTHING = auto()
    SILENT = auto()


class Confirming(ABC):
    """The rows in flight on one connection; `now` is a monotonic clock's seconds.

    `for_device`: whoever reads has a stored position, which confirmations move.
    """

    __slots__ = ("_for_device",)

    takes_acks = False

    def __init__(self, *, for_device: bool) -> None:
        self._for_device = for_device

    @abstractmethod
    def __len__(self) -> int:
        """How many sendings are not answered for."""

    @abstractmethod
    def __iter__(self) -> Iterator[Entry]:
        """Rows in flight, in order."""

    def __contains__(self, row_id: object) -> bool:
        return any(message.id == row_id for message, _ in self)

    @property
    @abstractmethod
    def has_room(self) -> bool:
        """Whether one more row may be sent; a single one may be larger than the window."""

    @property
    def unconfirmed(self) -> list[int]:
        """Ids of the rows in flight, in order."""
        return [message.id for message, _ in self]

    @property
    def unproven(self) -> int:
        """Rows that the peer took and only time will confirm."""
        return 0

    @property
    def oldest_unacked(self) -> Message | None:
        """The oldest row that waits for an ack."""
        return None

    @abstractmethod
    def begin(self, now: float) -> None:
        """Count the peer's silence from here."""

    @abstractmethod
    def add(self, message: Message, found_by: Pass | None, now: float) -> int | None:
        """Note that a row is sent; returns its sequence number, if it has one."""

    @property
    @abstractmethod
    def is_asking(self) -> bool:
        """Whether a ping is outstanding."""

    @property
    def may_ask(self) -> bool:
        """Whether there is something to ask for and no ping outstanding."""
        return False

    def should_ask(self, now: float) -> bool:  # noqa: ARG002 - not every way is by asking
        """Whether to ask along with what has just been sent, and not when the time comes."""
        return False

    @abstractmethod
    def ask(self, now: float) -> None:
        """Note that a ping is sent; it covers everything in flight."""

    @abstractmethod
    def answered(self, now: float) -> list[Confirmed]:
        """Take the pong; returns what it confirms."""

    def settle(self, said: inbound.Ack | inbound.Nack, now: float) -> list[Action] | None:  # noqa: ARG002
        """Take an ack or a nack; None when it is wrong, nothing when it was said before."""
        return None

    def send_again(self, now: float) -> tuple[Message, int] | None:  # noqa: ARG002 - most never do
        """Note that the oldest row is sent again; returns it and its number, None when it must not be."""
        return None

    def keep_back(self) -> None:  # noqa: B027 - most never send again
        """Send nothing again that is in flight now: it may not be for this user any longer."""

    def elapsed(self, now: float) -> list[Confirmed]:  # noqa: ARG002 - to most time says nothing
        """Return what time alone has confirmed."""
        return []

    @abstractmethod
    def deadline(self) -> float:
        """When something is due."""

    @abstractmethod
    def due(self, now: float) -> Due | None:
        """Say what is to be done, if anything is."""

    @abstractmethod
    def clear(self) -> None:
        """Forget everything: the connection has ended."""

    def _confirmed(self, received: Sequence[Message], reached: Entry | None) -> Confirmed:
        position = None
        if self._for_device and reached is not None and reached[1] is not None:
            position = reached[1].stored_at(reached[0].id)
        return Confirmed(
            tuple([message.key for message in received if not message.is_sync]),
            tuple([message.key for message in received if message.is_sync]),
            position,
            tuple([message.key for message in received if message.redelivered]),
        )

"""One catch-up of a session: how far its read has come, and what the tail routed meanwhile.

    to start ──▶ awaited ──page──▶ more │ last        more ──▶ awaited

Rows routed during a read are held back: its snapshot says afterwards which of them it had. When they become
too many they are dropped, and another read follows. A session makes one of these each time it falls back to
the table, and lets go of it when it is live.
"""

from collections.abc import Iterable, Iterator
from enum import Enum, auto

from app.core.actions import NextPage, StartRead
from app.core.flight import Limits
from app.core.messages import Message
from app.core.position import Pass, Position
from app.core.queue import Queue


class _Read(Enum):
    """How far the read has come."""

    TO_START = auto()
    AWAITED = auto()
    MORE = auto()
    LAST = auto()


class CatchingUp:
    """A session's read, from before it starts until its last page, and the rows held back."""

    __slots__ = ("_held", "_is_partial", "_read", "_shed", "is_outdated")

    def __init__(self) -> None:
        self._read = _Read.TO_START
        self._is_partial = False
        self._held = Queue()
        self._shed = False
        self.is_outdated = False
        """Whether the page that is awaited may have rows that are no longer for this user."""

    @property
    def is_read(self) -> bool:
        """Whether the last page has been handed over."""
        return self._read is _Read.LAST

    @property
    def needs_another(self) -> bool:
        """Whether what was read does not reach up to what is routed now."""
        return self._is_partial or self._shed

    @property
    def count_held(self) -> int:
        """Rows held back."""
        return len(self._held)

    def held(self) -> Iterator[tuple[Message, Pass]]:
        """Rows held back, in order, each with the pass that found it."""
        return ((message, found_by) for message, found_by in self._held if found_by is not None)

    def next_step(self, position: Position | None, *, with_undelivered: bool) -> StartRead | NextPage | None:
        """Say what to read now, which is awaited from here on; None while that is so already."""
        match self._read:
            case _Read.TO_START:
                step: StartRead | NextPage = StartRead(position, with_undelivered)
            case _Read.MORE:
                step = NextPage()
            case _:
                return None
        self._read = _Read.AWAITED
        return step

    def begun(self, *, partial: bool) -> None:
        """Note what the read makes: `partial`, when only the rest of a pass."""
        self._is_partial = partial

    def came(self, *, more: bool) -> None:
        """Note that a page came; `more` when others follow."""
        self._read = _Read.MORE if more else _Read.LAST

    def hold(self, messages: Iterable[Message], found_by: Pass, limits: Limits) -> None:
        """Keep what the tail routed until the read has ended."""
        if self._shed or self._read is _Read.TO_START:
            return  # the read to come takes its snapshot later, and has them
        for message in messages:
            self._held.add(message, found_by)
        if self._held.exceeds(limits.queue, limits.queue_bytes):
            self.shed()

    def look_again(self) -> None:
        """Take nothing of before for the user's: the table is to say once more what is."""
        self.is_outdated = self._read is _Read.AWAITED
        self.shed()

    def shed(self) -> None:
        """Drop what is held back: another read is to find it."""
        if self._held:
            self._held.clear()
            self._shed = True

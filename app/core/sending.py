"""What a session sends, in which order, and what its reader has by that.

    page ─────────────▶ ready ──window has room──▶ in flight
    row of the tail ──something is ready, or no room──▶ ready, else ──▶ in flight

The window (`confirming.py`) bounds what is in flight. Each row sent moves the place of the reader in the pass
that found it; when a row of another pass is sent, every row of the one before has been.
"""

from collections.abc import Iterable

from app.core.actions import Action, Send
from app.core.confirming import Confirming
from app.core.messages import Message
from app.core.position import Pass, Position
from app.core.queue import Queue


class Sending:
    """Rows that are ready, and the reader's place among those that were sent.

    `given`: the position that the reader came with; `tells_positions`: its client wants one with every row;
    `device_id` and `takes_sync` say which sync rows are for it.
    """

    __slots__ = (
        "_after_id",
        "_confirming",
        "_found_by",
        "_given",
        "_pass",
        "_tells_positions",
        "device_id",
        "ready",
        "takes_sync",
    )

    def __init__(
        self,
        confirming: Confirming,
        given: Position | None,
        *,
        device_id: int | None,
        takes_sync: bool,
        tells_positions: bool,
    ) -> None:
        self.device_id = device_id
        self.takes_sync = takes_sync
        self._tells_positions = tells_positions
        self._confirming = confirming
        self.ready = Queue()
        """What waits for room in the window."""

        # What the reader had when it came. From its first read on: the pass under way as this reader makes it
        # and as it was found (a live pass may begin before what the reader has), and the last row of it that
        # was sent, None when none is left.
        self._given = given
        self._pass: Pass | None = None
        self._found_by: Pass | None = None
        self._after_id: int | None = None

    @property
    def position(self) -> Position | None:
        """What the reader has been sent; before its first read what it came with, if anything."""
        if self._pass is None:
            return self._given
        return self._pass.end() if self._after_id is None else self._pass.at(self._after_id)

    def level_with(self, routed: Pass | None) -> Position | None:
        """What the reader has by the last pass routed whole, when nothing waits; None if it has more."""
        if self._pass is None or routed is None or routed.incarnation != self._pass.incarnation:
            return None
        return routed.end() if routed.reading.covers(self._pass.reading) else None

    def begin_pass(self, first: Pass, *, partial: bool) -> None:
        """Go over to the pass that a read makes; `partial`: it is the rest of the one under way."""
        position = self.position
        self._after_id = position.after_id if partial and position is not None else 0
        if partial and self._pass is not None:
            first = first._replace(kept=self._pass.kept)
        self._pass = self._found_by = first

    def go_over(self, done: Pass) -> None:
        """Go over to the end of a pass across a restart, where its reader is still before that."""
        lives = {position.incarnation for position in done.before}
        if self._pass is not None and self._pass.incarnation in lives and not self.ready:
            self._pass, self._found_by, self._after_id = done, done, None

    def end_pass(self) -> None:
        """Note that every row of the pass has been sent."""
        self._after_id = None

    def is_mine(self, message: Message) -> bool:
        """Whether a row of its user is for this reader."""
        return not message.is_sync or (self.takes_sync and message.origin != self.device_id)

    def add_page(self, messages: Iterable[Message]) -> None:
        """Make rows of the pass under way ready, as they were read."""
        for message in messages:
            if self.is_mine(message):
                self.ready.add(message, self._pass)

    def add_again(self, message: Message) -> None:
        """Make a row ready that was sent before; it has no place of its own."""
        self.ready.add(message._replace(redelivered=True), None)

    def route(self, messages: Iterable[Message], found_by: Pass, actions: list[Action], now: float) -> None:
        """Send those rows that the tail found and the reader has not got; what finds no room is ready."""
        before, after_id = self._pass, self._after_id
        # Xids say something only within one incarnation; after a restart a row too many is allowed.
        if before is not None and before.incarnation != found_by.incarnation:
            before = None
        repeating = self._own(found_by) if found_by.before else None
        for message in messages:
            if message.is_sync and not self.is_mine(message):  # most are events, which need no call
                continue
            if before is not None and before.had(message.xid, message.id, after_id):
                continue
            if repeating is not None and not message.redelivered:
                again = repeating.repeats(message.xid, message.id, message.written_at)
                message = message._replace(redelivered=again)  # noqa: PLW2901 - the same row
            if self.ready.count or not self._confirming.has_room:
                self.ready.add(message, found_by)
            else:
                self._send(message, found_by, actions, now)

    def send(self, actions: list[Action], now: float) -> bool:
        """Send of what is ready as much as the window takes; whether it has room for more."""
        while self._confirming.has_room:
            if not self.ready.count:
                return True
            self._send(*self.ready.take(), actions, now)
        return False

    def send_again(self, now: float) -> list[Action]:
        """Send the oldest row in flight once more, where it may be."""
        if (sending := self._confirming.send_again(now)) is None:
            return []
        message, number = sending
        return [Send(message, self.position if self._tells_positions else None, number, again=True)]

    def _send(self, message: Message, found_by: Pass | None, actions: list[Action], now: float) -> None:
        placed_by = None
        if found_by is not None:
            if found_by is not self._found_by:
                self._pass, self._found_by = self._own(found_by), found_by
            self._after_id, placed_by = message.id, self._pass
        number = self._confirming.add(message, placed_by, now)
        position = self.position if self._tells_positions else None
        actions.append(Send(message, position, number, message.redelivered))

    def _own(self, found_by: Pass) -> Pass:
        """The pass as this reader makes it: from what it has already, if that is more."""
        if found_by is self._found_by and self._pass is not None:
            return self._pass
        # Live, a new pass begins when every row of the one before has been sent.
        before = self._pass
        if before is None:
            return found_by
        if before.incarnation != found_by.incarnation:
            # Who came while the tail was behind had read more than the tail.
            had = self.position
            return found_by if had is None else found_by._replace(before=(*found_by.before, *had.before, had))
        if found_by.seen.covers(before.reading):
            return found_by
        return found_by._replace(seen=before.reading, seen_at=before.reading_at)

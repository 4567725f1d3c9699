"""What a client asked for when it connected, beyond what every client gets."""

from dataclasses import dataclass, replace

from app.core.position import Position
from app.core.token import Holder, Token, TokenError, decode


@dataclass(frozen=True, slots=True)
class Wishes:
    """`token` is the position the client gave, as it gave it; empty when it gave none.

    `positions`: it wants one in every message; `acks`: it acknowledges what it has processed; `malformed`: it
    gave a position that is none, or not its own.
    """

    positions: bool = False
    acks: bool = False
    token: str = ""
    given: Token | None = None
    malformed: bool = False

    @classmethod
    def parse(cls, position: str | None, *, acks: bool = False, last_event_id: str | None = None) -> "Wishes":
        """Read the parameter `position`; one that cannot be read is kept in mind as malformed.

        `last_event_id`: the position that an SSE client gives by itself, which is the newer one.
        """
        positions = position is not None
        token = last_event_id or position or ""
        try:
            return cls(positions, acks, token, decode(token) if token else None)
        except TokenError:
            return cls(positions, acks, token, malformed=True)

    @property
    def position(self) -> Position | None:
        """The position that the client gave: whatever it covers, the client has."""
        return None if self.given is None else self.given.position

    def of(self, holder: Holder, stored: Position | None) -> tuple["Wishes", Position | None]:
        """What counts of that for this holder, and where its reader begins; `stored` is what its device has.

        Where the sync rows that are for the device were none of what the position's reader was sent, the
        position proves nothing: its reader begins at whichever of the two has less.
        """
        if self.given is None:
            return self, stored
        if not self.given.is_of(holder.user_id):
            return replace(self, given=None, malformed=True), stored
        if self.given.has_sync_of(holder):
            return self, self.position
        return replace(self, given=None), _less(self.given.position, stored)


def _less(given: Position, stored: Position | None) -> Position:
    """Where a reader begins that has what both positions have.

    Of a read that was cut only what came before it counts: sync rows up to the cut may be missing.
    """
    given = replace(given, reading=None, after_id=0)
    if stored is None or stored.covers(given):
        return given
    # Times tell only across a restart, after which the overlap is read again: a snapshot is taken some time
    # after the moment that is noted with it.
    is_stored_older = stored.incarnation == given.incarnation or stored.taken_at < given.taken_at
    return stored if is_stored_older else given


NOTHING = Wishes()

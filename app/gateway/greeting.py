"""How a connection says `connected`, which comes first, always, and what it tells with that.

A client that asked for nothing is greeted at once. One that asked for acks or positions is told whether it
was resumed, or why not, which only its first read knows.
"""

from datetime import UTC, datetime

from app.core import messages
from app.core.position import Lost, Position
from app.core.reads import Begun
from app.core.token import Holder, encode
from app.core.wishes import Wishes
from app.gateway.socket import Socket

MOST_HELD = 32
"""Messages that wait for `connected`: more errors than a client may cause."""


class Greeting:
    """The `connected` of one connection; `heartbeat` is how often it is pinged, in seconds."""

    __slots__ = ("_heartbeat", "_held", "_holder", "_knows_of_gap", "_socket", "is_said", "wishes")

    def __init__(self, holder: Holder, wishes: Wishes, socket: Socket, *, heartbeat: float) -> None:
        self._holder = holder
        self._socket = socket
        self._heartbeat = heartbeat
        self._knows_of_gap = False
        self._held: tuple[bytes, ...] = ()
        self.wishes = wishes
        self.is_said = False

    @property
    def tells_positions(self) -> bool:
        """Whether the client gets positions, in its messages or beside them."""
        return self.wishes.positions or self._socket.beside is not None

    def say_at_once(self) -> None:
        """Greet a client that is told nothing more; others wait for their first read."""
        if not self.tells_positions and not self.wishes.acks:
            self._say(messages.connected(self._holder.user_id, datetime.now(UTC)))

    def say(self, begun: Begun, position: Position) -> None:
        """Greet with what the first read found; `position` is where it begins."""
        wishes, lost = self.wishes, begun.lost
        exact = lost is None and not wishes.malformed
        reason = None if exact else Lost.MALFORMED if wishes.malformed else lost
        self._knows_of_gap = not exact
        own = exact and wishes.position is not None
        # The client's own covers no more than what it has been sent, and so does where this read begins.
        token = wishes.token if own else encode(position, self._holder)
        if self._socket.beside is not None:
            self._socket.beside.position(token)
        now = datetime.now(UTC)
        asked_for_positions = wishes.positions or bool(wishes.token)
        if not asked_for_positions and not wishes.acks:
            self._say(messages.connected(self._holder.user_id, now))
            return
        self._say(
            messages.connected_for_more(
                self._holder.user_id,
                now,
                epoch=begun.first.incarnation.life,
                heartbeat_ms=int(self._heartbeat * 1000),
                resumption=messages.Resumption(token, exact, reason) if asked_for_positions else None,
            )
        )

    def tell(self, message: bytes) -> None:
        """Send a control message, after `connected`."""
        if self.is_said:
            self._socket.send(message)
        elif len(self._held) < MOST_HELD:
            self._held = (*self._held, message)

    def tell_held(self) -> None:
        """Send what waited for `connected`: it was said, or is not going to be, since the connection ends."""
        held, self._held = self._held, ()
        for message in held:
            self._socket.send(message)

    def must_be_said_anew(self, lost: Lost | None) -> bool:
        """Whether rows would be missed unawares: only `connected` can tell it, and the next one does."""
        return lost is Lost.RETENTION and self.tells_positions and not self._knows_of_gap

    def _say(self, message: bytes) -> None:
        self.is_said = True
        self._socket.send(message)
        self.tell_held()

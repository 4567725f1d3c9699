"""Where a connection's positions go: into its messages, beside them, and into what its device has stored."""

from collections.abc import Callable
from datetime import timedelta

from app.core import messages
from app.core.position import Pass, Position
from app.core.session import Session
from app.core.token import Holder, encode
from app.gateway.ports import Receipts
from app.gateway.socket import Beside


class Positions:
    """Tells the client of one connection what it may keep, and stores what its device has while it is idle.

    `holder`: whose they are; `device`: its id, its user, and the generation of the connection; `beside`:
    where a position goes that is not part of a message; `in_messages`: its client asked for them.
    `routed` says which pass was the last to be routed whole.
    """

    __slots__ = (
        "_beside",
        "_device",
        "_holder",
        "_in_messages",
        "_lags",
        "_receipts",
        "_routed",
        "_session",
        "_stored",
    )

    def __init__(
        self,
        session: Session,
        routed: Callable[[], Pass | None],
        receipts: Receipts,
        holder: Holder,
        device: tuple[int, str, int] | None,
        beside: Beside | None,
        *,
        in_messages: bool,
    ) -> None:
        self._session = session
        self._routed = routed
        self._receipts = receipts
        self._holder = holder
        self._device = device
        self._beside = beside
        self._in_messages = in_messages
        self._stored: Position | None = None
        self._lags = False

    def placed(self, body: bytes, position: Position) -> bytes:
        """The message with its position where the client wants it, or nowhere when that goes beside it."""
        token = encode(position, self._holder)
        if self._beside is not None:
            self._beside.position(token)
        return messages.with_position(body, token) if self._in_messages else body

    def placed_now(self, body: bytes) -> bytes:
        """The message with what the client has at this point of the stream, where it asked for that."""
        position = self._session.position_told(self._routed()) if self._in_messages else None
        return body if position is None else messages.with_position(body, encode(position, self._holder))

    def tell_beside(self) -> None:
        """Tell what the client has at this point of the stream, where that can be told without a message."""
        if self._beside is None:
            return
        position = self._session.position_told(self._routed())
        if position is not None:
            self._beside.position(encode(position, self._holder))

    def confirmed(self, position: Position) -> None:
        """Store what the device has by a confirmation, or by now, where nothing is under way any more.

        A pass that follows a restart of the database repeats old rows, and says nothing there of later ones:
        while the tail is at it, what is stored has more.
        """
        if self._device is None:
            return
        routed = self._routed()
        settled = self._session.settled_position(routed)
        self._lags = settled is None
        if settled is not None:
            self._store(self._device, settled)
        elif routed is not None and routed.incarnation == position.incarnation:
            self._store(self._device, position)

    def store_idle(self, older_than: timedelta) -> None:
        """Store what the device has although nothing came for it, unless what is stored is not that old.

        Also after a restart of the database, which may have taken what was stored last.
        """
        if self._device is None:
            return
        position = self._session.settled_position(self._routed())
        if position is None or position == self._session.position:
            return
        stored = self._stored
        if (
            self._lags
            or stored is None
            or stored.incarnation != position.incarnation
            or position.taken_at - stored.taken_at >= older_than
        ):
            self._lags = False
            self._store(self._device, position)

    def _store(self, device: tuple[int, str, int], position: Position) -> None:
        self._stored = position
        self._receipts.move(device, position)

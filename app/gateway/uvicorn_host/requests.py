"""uvicorn's HTTP protocols with limits on request heads, and a view of the connection for streams.

uvicorn has no time limit on a request head: a client that sends half of one keeps its connection for ever.
Nor does each of its parsers limit how long a head may be, and nothing how many clients do so.
"""

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from app.gateway.socket import OUTGOING

from .half_open import HalfOpen
from .options import HEAD_REFUSED
from .tcp import set_user_timeout, unacknowledged, unread
from .turnstile import Turnstile

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Base
else:
    _Base = object

MOST_KEPT_WAITING = 4096
"""Bytes of a first request that wait for their turn; more would be too much to keep of thousands."""
MOST_WAITING = 16
"""Requests of a connection that wait for the answer to the one before; each costs 100 times its bytes."""


class _Outgoing:
    """The TCP connection under a request, for an application that has to know what the peer got."""

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def unacknowledged(self) -> int | None:
        return unacknowledged(self._transport)

    def abort(self) -> None:
        self._transport.abort()


class RequestHeadLimit(_Base):
    """Mixed into the HTTP protocol in use: a connection that owes us a request head is dropped in time.

    A head of more bytes than allowed is answered by 431.
    """

    half_open: ClassVar[HalfOpen]
    head_timeout: ClassVar[float]
    head_size: ClassVar[int]
    user_timeout: ClassVar[float]
    turnstile: ClassVar[Turnstile]
    _waits_with: bytes | None = None
    _is_in = False
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _read: tuple[Any, ...] = ()
    """Requests that httptools has read, in order, those answered left out when the next comes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request head."""
        super().connection_made(transport)
        set_user_timeout(transport, self.user_timeout)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take what has come; the first of a connection in its turn."""
        if self._waits_with is not None:
            self._waits_with += data
        elif self._is_in or len(data) > MOST_KEPT_WAITING or self.turnstile.lets_in(self._enter):
            self._is_in = True
            self._take(data)
        else:
            self._waits_with = data
            self._stop_watching()  # it owes nothing
            self.transport.pause_reading()

    def _enter(self) -> None:
        """Go on with what came while it waited for its turn."""
        data, self._waits_with = self._waits_with, None
        self._is_in = True
        if data is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            self._take(data)

    def _take(self, data: bytes) -> None:
        """See whether a request head is still owed."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before and self.cycle is not None:
            # Its task has not begun to run.
            scope: Any = self.cycle.scope
            scope.setdefault("extensions", {})[OUTGOING] = _Outgoing(self.transport)
        self._watch_head()
        self._measure_head(len(data))
        if self not in self.connections and hasattr(self, "parser"):
            # Upgraded: the HTTP parser and this object hold each other, and nobody would break that.
            self.parser: Any = None

    def on_headers_complete(self) -> None:
        """Take a head, unless too many wait for their turn: httptools reads all that has come at once."""
        if len(getattr(self, "pipeline", ())) >= MOST_WAITING:
            raise ValueError("too many requests at once")
        super().on_headers_complete()  # type: ignore[misc]
        before = (one for one in self._read if one is not self.cycle and not one.response_complete)
        self._read = (*before, self.cycle)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; where an answer is owed or under way, instead of that one or not at all.

        uvicorn would let the application answer too, and log an error when the parser refuses the second.
        """
        if any(one.response_started for one in self._give_up()):
            self.transport.close()
            return
        super().send_400_response(msg)

    def _give_up(self) -> list[Any]:
        """Tell every request without a whole answer that nobody is there; uvicorn tells the last one only.

        One that answers all the same would write to a connection that is gone: uvloop calls that an error.
        """
        read, self._read = self._read or (self.cycle,), ()
        unanswered = [one for one in read if one is not None and not one.response_complete]
        for one in unanswered:
            one.disconnected = True
            one.message_event.set()
        return unanswered

    def has_sent(self) -> bool:
        """Whether something that it sent waits to be read."""
        return unread(self.transport) > 0

    def drop(self) -> None:
        """End the connection: it owes a request for too long, or beside too many others."""
        self._stop_watching()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self._give_up()
        self._stop_watching()

    def _watch_head(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if not idle or self not in self.connections:
            self._stop_watching()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout, self.drop)
            self.half_open.begin(self)

    def _measure_head(self, arrived: int) -> None:
        """Count what has come of a head that is not complete, a body that nobody reads left aside."""
        if self._head_timer is None or (self.cycle is not None and self.cycle.more_body):
            self._head_bytes = 0
            return
        self._head_bytes += arrived
        if self._head_bytes > self.head_size and not self.transport.is_closing():
            self.transport.write(HEAD_REFUSED)
            self.transport.close()

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            self.half_open.end(self)

"""The socket of an accepted connection: what is kept for it while nothing happens.

It takes the transport over from uvicorn's protocol once the handshake is done, so that everything the
handshake needed can be forgotten. Per idle connection there is this object and the transport: no task, no
queue, no parser, no timer.
"""

import asyncio
import logging
import secrets
from collections.abc import Iterator, MutableSet
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from websockets.frames import CLOSE, PONG, Close, CloseCode, Frame

from app.gateway.socket import OpenEvents, SocketEvents

from .inbound import (
    FRAMES_AT_ONCE,
    FRAMES_PER_SECOND,
    TOO_MANY_FRAMES,
    Arrival,
    Binary,
    Closing,
    Inbound,
    Ping,
    Pong,
    Text,
    TooLarge,
    Violation,
    lone_frame,
)

log = logging.getLogger(__name__)

_TEXT_FRAME: Final = b"\x81"
_SHORT: Final = 126
_MEDIUM: Final = 1 << 16
_REASON_SIZE: Final = 123
_PING_SIZE: Final = 4
_PINGS_AT_ONCE: Final = 256
_TOO_MANY: Final = Violation(CloseCode.POLICY_VIOLATION, TOO_MANY_FRAMES)


def _nonces() -> Iterator[bytes]:
    """Random bytes, of which the system is asked for many at once."""
    while True:
        some = secrets.token_bytes(_PING_SIZE * _PINGS_AT_ONCE)
        yield from (some[start : start + _PING_SIZE] for start in range(0, len(some), _PING_SIZE))


@dataclass(frozen=True, slots=True)
class SocketHost:
    """What all sockets of a server share."""

    loop: asyncio.AbstractEventLoop
    connections: MutableSet[asyncio.Protocol]
    """uvicorn's register of connections: it asks each of them to shut down, and waits until it is empty."""
    message_size: int
    high_water: int
    close_timeout: float
    nonces: Iterator[bytes] = field(default_factory=_nonces)
    """What pings ask to have back: who could guess it could confirm what it has not read."""


class _State(Enum):
    OPEN = auto()
    CLOSING = auto()  # our close frame is out, the peer's is awaited
    ENDING = auto()  # nothing is read any more; what is buffered may still go out
    CLOSED = auto()


def text_frame(payload: bytes) -> bytes:
    """Frame a server's unfragmented text message (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < _SHORT:
        return b"%b%c%b" % (_TEXT_FRAME, size, payload)
    if size < _MEDIUM:
        return b"%b\x7e%b%b" % (_TEXT_FRAME, size.to_bytes(2), payload)
    return b"%b\x7f%b%b" % (_TEXT_FRAME, size.to_bytes(8), payload)


class LiveSocket(asyncio.Protocol):
    """A `Socket` on a transport whose WebSocket handshake is complete."""

    __slots__ = (
        "_close_code",
        "_events",
        "_frames_until",
        "_host",
        "_inbound",
        "_outgoing",
        "_outgoing_size",
        "_ping",
        "_state",
        "_timer",
        "_transport",
        "_writable",
    )

    confirms = True
    beside = None

    def __init__(self, host: SocketHost, transport: asyncio.Transport, open_events: OpenEvents) -> None:
        self._host = host
        self._transport = transport
        self._state = _State.OPEN
        self._writable = True
        self._inbound: Inbound | None = None
        self._outgoing: list[bytes] | None = None
        self._outgoing_size = 0
        self._ping: bytes | None = None
        self._close_code: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._frames_until = 0.0  # when it will have sent no more than it may in the long run
        self._events: SocketEvents | None = open_events(self)

    # What a connection may do

    @property
    def writable(self) -> bool:
        """False while the transport holds more than its high-water mark."""
        return self._writable

    def send(self, message: bytes) -> None:
        """Send one text message, written with whatever else there is by the next `flush`."""
        if self._state is _State.OPEN:
            self._frames_until -= 1 / FRAMES_PER_SECOND  # for its ack: who answers is no flood
            self._write(text_frame(message))

    def ping(self) -> None:
        """Send a ping whose answer `on_pong` reports."""
        if self._state is _State.OPEN:
            self._ping = next(self._host.nonces)
            self._write(b"\x89\x04" + self._ping)

    def flush(self) -> None:
        """Write what has been collected: a burst costs one system call, not one per message."""
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is None or self._transport.is_closing():
            return
        try:
            self._transport.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))
        except Exception:
            # Many connections are written to in a row; one's fault must not reach the others.
            log.exception("a connection could not be written to")
            with suppress(Exception):
                self.abort()

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame and drop the connection when the echo came or its time is over.

        `reason` is cut to what a close frame holds. Raises ProtocolError for a code no frame may carry.
        """
        if self._state is not _State.OPEN:
            return
        cut = reason.encode()[:_REASON_SIZE].decode(errors="ignore")
        self._write(Frame(CLOSE, Close(code, cut).serialize()).serialize(mask=False))
        self.flush()
        if self._state is _State.OPEN:
            self._state = _State.CLOSING
            self._close_code = code
            self._drop_later()

    def abort(self) -> None:
        """Drop the connection now."""
        if self._state is not _State.CLOSED:
            self._state = _State.ENDING
            self._outgoing = None
            self._transport.abort()

    def shutdown(self) -> None:
        """Close because the server stops (uvicorn calls this)."""
        self.close(CloseCode.GOING_AWAY)

    # What the transport tells

    def data_received(self, data: bytes) -> None:
        """Pass on what the peer sent."""
        if self._state is _State.ENDING:
            return
        if self._inbound is None and (alone := lone_frame(data)) is not None:
            self._take(alone if self._may_send(1) else _TOO_MANY)
            return
        inbound, self._inbound = self._inbound or Inbound(self._host.message_size), None
        answer: bytes | None = None
        for arrival in inbound.feed(data):
            if isinstance(arrival, Ping):
                # Of several pings in one read only the last is answered (RFC 6455, section 5.5.3).
                answer = arrival.payload
            else:
                self._take(arrival)
            if self._ending():
                return
        frames, inbound.frames = inbound.frames, 0
        if not self._may_send(frames):
            self._take(_TOO_MANY)
            return
        if answer is not None and self._writable:
            self._write(Frame(PONG, answer).serialize(mask=False))
            self.flush()
        if not inbound.idle:
            self._inbound = inbound

    def eof_received(self) -> None:
        """End the connection: half of one is of no use."""
        self._end()

    def pause_writing(self) -> None:
        """Note that the transport is above its high-water mark."""
        self._writable = False

    def resume_writing(self) -> None:
        """Tell the connection that there is room again."""
        self._writable = True
        if self._state is _State.OPEN and self._events is not None:
            self._events.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  why it broke says nothing about the peer
        """Tell the connection that it is over."""
        self._state = _State.CLOSED
        self._outgoing = self._inbound = None
        self._host.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Dropped before the call: the two refer to each other, and the collector should not have to find out.
        events, self._events = self._events, None
        if events is not None:
            events.on_closed(self._close_code)

    # Inside

    def _may_send(self, frames: int) -> bool:
        """Count frames; whether they are no more than a client may send."""
        now = self._host.loop.time()
        self._frames_until = max(self._frames_until, now) + frames / FRAMES_PER_SECOND
        return self._frames_until - now <= FRAMES_AT_ONCE / FRAMES_PER_SECOND

    def _ending(self) -> bool:
        return self._state is _State.ENDING or self._state is _State.CLOSED

    def _take(self, arrival: Arrival) -> None:
        match arrival:
            case Closing(code, payload):
                self._answer_close(code, payload)
            case Violation(code, reason):
                self._break_off(code, Close(code, reason).serialize())
            case _ if self._state is not _State.OPEN or self._events is None:
                pass
            case Pong(payload):
                if payload == self._ping:
                    self._ping = None
                    self._events.on_pong()
            case Text(text):
                self._events.on_text(text)
            case Binary(size):
                self._events.on_binary(size)
            case TooLarge():
                self._events.on_too_large()

    def _answer_close(self, code: int, payload: bytes) -> None:
        self._say_close(code, payload)
        self._end()

    def _break_off(self, code: int, payload: bytes) -> None:
        """Say why this ends, and throw away what comes until the peer has heard it, or its time is over.

        Where bytes are left unread, TCP resets the connection, and the peer may never see what was said.
        """
        self._say_close(code, payload)
        self.flush()
        self._state = _State.ENDING
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        self._drop_later()

    def _say_close(self, code: int, payload: bytes) -> None:
        if self._state is _State.OPEN:
            self._close_code = code
            self._write(Frame(CLOSE, payload).serialize(mask=False))

    def _write(self, data: bytes) -> None:
        """Collect what is sent until the next `flush`, or until that is too much."""
        if self._outgoing is None:
            self._outgoing = [data]
            self._outgoing_size = len(data)
        else:
            self._outgoing.append(data)
            self._outgoing_size += len(data)
            if self._outgoing_size > self._host.high_water:
                self.flush()  # now, so that `writable` tells the truth

    def _end(self) -> None:
        """Close the transport once its buffer is written, or drop it when that takes too long."""
        if self._state is _State.CLOSED:
            return
        self.flush()
        self._state = _State.ENDING
        self._transport.close()
        self._drop_later()

    def _drop_later(self) -> None:
        if self._timer is None:
            self._timer = self._host.loop.call_later(self._host.close_timeout, self.abort)

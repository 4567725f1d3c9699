"""From the bytes of one client to its messages: sans-I/O, forgotten while nothing is under way.

Frames are parsed by the websockets library, one at a time; what is done here is the layer above a frame:
fragments, limits, UTF-8. A message above the limit is skipped without being kept, so that the client can be
told; one beyond `SKIP_FACTOR` times the limit ends the connection.
"""

from collections.abc import Generator, Iterator
from typing import NamedTuple

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import CLOSE, CONT, PING, PONG, TEXT, Close, CloseCode, Frame, Opcode
from websockets.streams import StreamReader

try:
    from websockets.speedups import apply_mask
except ImportError:  # where it was built without a compiler
    from websockets.utils import apply_mask

SKIP_FACTOR = 16
FRAMES_AT_ONCE = 1024
"""Frames one read may hold: a client that packs more of them into it does so to cost us time."""
FRAMES_PER_SECOND = 500
"""Frames a client may send in the long run, beside one for each message sent to it: each costs it a few bytes
and us a thousand times as much."""
TOO_MANY_FRAMES = "too many frames"

_CONTROL_SIZE = 125
_CONTROL_BIT = 0x08
_OPCODE_BITS = 0x0F
_FIN_BIT = 0x80
_MASKED = 0x80
_MASK_SIZE = 4
_SHORT_HEADER = 2 + _MASK_SIZE


class Text(NamedTuple):
    """A complete text message."""

    text: str


class Binary(NamedTuple):
    """A complete binary message of `size` bytes."""

    size: int


class TooLarge(NamedTuple):
    """A message above the limit; the rest of it is being skipped."""


class Ping(NamedTuple):
    """The peer wants `payload` back."""

    payload: bytes


class Pong(NamedTuple):
    """The peer sent `payload` back, or says it is alive."""

    payload: bytes


class Closing(NamedTuple):
    """The peer's close frame: its code (1005 without one) and its payload to echo."""

    code: int
    payload: bytes


class Violation(NamedTuple):
    """The peer broke the protocol; nothing after this is parsed."""

    code: int
    reason: str


Arrival = Text | Binary | TooLarge | Ping | Pong | Closing | Violation


def lone_frame(data: bytes) -> Text | Pong | None:
    """Read a short text or pong frame that is all of `data`, as nearly everything a client sends is.

    None for anything else, and for what is not valid: `Inbound` knows what to say about that.
    """
    size = len(data) - _SHORT_HEADER
    if not 0 <= size <= _CONTROL_SIZE or data[1] != _MASKED | size:
        return None
    if data[0] == _FIN_BIT | PONG:
        return Pong(apply_mask(data[_SHORT_HEADER:], data[2:_SHORT_HEADER]))
    if data[0] == _FIN_BIT | TEXT:
        try:
            return Text(apply_mask(data[_SHORT_HEADER:], data[2:_SHORT_HEADER]).decode())
        except UnicodeDecodeError:
            return None
    return None


class Inbound:
    """The part of a client's byte stream that has not become a message yet."""

    __slots__ = (
        "_frame",
        "_head",
        "_kind",
        "_limit",
        "_message",
        "_reader",
        "_size",
        "_skip",
        "ended",
        "frames",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._reader = StreamReader()
        self._frame: Generator[None, None, Frame] | None = None
        self._head = 0  # first byte of the frame being parsed
        self._kind: Opcode | None = None  # of the message being assembled
        self._message = bytearray()
        self._size = 0  # of that message so far, with what was skipped of it
        self._skip = 0  # bytes still to be thrown away
        self.ended = False
        self.frames = 0
        """Frames that began, since somebody counted them."""

    @property
    def idle(self) -> bool:
        """True between messages, when there is nothing to remember."""
        return self._frame is None and self._kind is None and not self._skip and not self._reader.buffer

    def feed(self, data: bytes) -> Iterator[Arrival]:
        """Yield what `data` completes; after a `Closing` or a `Violation` everything is ignored."""
        if self.ended:
            return
        self._reader.feed_data(data)
        try:
            for _ in range(FRAMES_AT_ONCE):
                if not self._more_to_parse():
                    return
                arrival = self._parse_frame()
                if arrival is not None:
                    yield arrival
                if self.ended or self._frame is not None:
                    return
        except ProtocolError as error:
            yield self._fail(CloseCode.PROTOCOL_ERROR, str(error))
        except UnicodeDecodeError:
            yield self._fail(CloseCode.INVALID_DATA, "invalid UTF-8")
        else:
            yield self._fail(CloseCode.POLICY_VIOLATION, TOO_MANY_FRAMES)

    def _more_to_parse(self) -> bool:
        buffer = self._reader.buffer
        if self._skip:
            skipped = min(self._skip, len(buffer))
            del buffer[:skipped]
            self._skip -= skipped
        return bool(buffer)

    def _parse_frame(self) -> Arrival | None:
        """Return what the next frame brings; None where it brings nothing or is not complete."""
        if self._frame is None:
            self.frames += 1
            self._head = self._reader.buffer[0]
            # A control frame may come in the middle of a message that has used up its limit.
            room = max(self._limit - self._size, _CONTROL_SIZE)
            self._frame = Frame.parse(self._reader.read_exact, mask=True, max_size=room)
        try:
            next(self._frame)
        except StopIteration as parsed:
            self._frame = None
            frame: Frame = parsed.value
            return self._on_frame(frame.opcode, bytes(frame.data), fin=frame.fin)
        except PayloadTooBig as error:
            self._frame = None
            return self._on_oversized_frame(error.size or 0)
        return None

    def _on_frame(self, opcode: Opcode, data: bytes, *, fin: bool) -> Arrival | None:
        if opcode is PING:
            return Ping(data)
        if opcode is PONG:
            return Pong(data)
        if opcode is CLOSE:
            self.ended = True
            return Closing(Close.parse(data).code, data)
        self._continue_message(opcode)
        told = self._size > self._limit
        self._size += len(data)
        if self._size > self._limit:
            return self._too_large(told=told, fin=fin)
        self._message += data
        return self._complete() if fin else None

    def _on_oversized_frame(self, size: int) -> Arrival | None:
        """Skip a frame of which the library has read the header up to the length."""
        if self._head & _CONTROL_BIT:
            raise ProtocolError("control frame too long")
        self._continue_message(Opcode(self._head & _OPCODE_BITS))
        told = self._size > self._limit
        self._size += size
        self._skip = size + _MASK_SIZE
        return self._too_large(told=told, fin=bool(self._head & _FIN_BIT))

    def _continue_message(self, opcode: Opcode) -> None:
        if opcode is CONT:
            if self._kind is None:
                raise ProtocolError("unexpected continuation frame")
        elif self._kind is not None:
            raise ProtocolError("expected a continuation frame")
        else:
            self._kind = opcode

    def _too_large(self, *, told: bool, fin: bool) -> Arrival | None:
        if self._size > self._limit * SKIP_FACTOR:
            return self._fail(CloseCode.MESSAGE_TOO_BIG, f"over {self._limit} bytes")
        self._message.clear()
        if fin:
            self._forget_message()
        return None if told else TooLarge()

    def _complete(self) -> Arrival:
        kind, message, size = self._kind, self._message, self._size
        self._forget_message()
        return Text(message.decode()) if kind is TEXT else Binary(size)

    def _forget_message(self) -> None:
        self._kind = None
        self._size = 0
        self._message = bytearray()

    def _fail(self, code: int, reason: str) -> Violation:
        self.ended = True
        return Violation(code, reason)

"""Positions as opaque, URL-safe text that a client keeps and gives back.

Layout (version 1), numbers as unsigned LEB128, then base64url without padding:
version, system (8 bytes), life (8 bytes), taken_at in microseconds since 1970, seen, and, in
mid-read, reading and after_id. A snapshot is xmax, the count of transactions in progress, and their
distances downwards from xmax.
"""

import base64
import binascii
from collections.abc import Iterable

from app.core.moment import microseconds, moment
from app.core.position import Incarnation, Position
from app.core.snapshot import MAX_XID, Snapshot

VERSION = 1
MAX_CHARS = 2048
_MAX_BYTES = MAX_CHARS * 3 // 4


class TokenError(ValueError):
    """The text is not a position token."""


def encode(position: Position) -> str:
    """Write a token of at most 2,048 characters.

    Where it would be longer, `seen` is lowered until it fits: the reader gets some rows again.
    """
    raw = _encode(position)
    keep = len(position.seen.in_progress)
    while len(raw) > _MAX_BYTES:
        # Halving, and giving up mid-read first, since `reading` is worthless below `seen`.
        keep //= 2
        lowered = position.seen.lowered(keep)
        raw = _encode(Position(lowered, position.taken_at, position.incarnation))
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> Position:
    """Read a token; raises TokenError for anything that `encode` did not write."""
    if len(text) > MAX_CHARS:
        raise TokenError("longer than a token")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        position = _decode(raw)
    except (ValueError, IndexError, OverflowError, binascii.Error) as error:
        raise TokenError("not a position token") from error
    if encode(position) != text:
        raise TokenError("not in the canonical form")
    return position


def _encode(position: Position) -> bytes:
    out = bytearray([VERSION])
    out += position.incarnation.system.to_bytes(8, "big") + bytes.fromhex(position.incarnation.life)
    _number(out, microseconds(position.taken_at))
    _snapshot(out, position.seen)
    if position.reading is not None:
        _snapshot(out, position.reading)
        _number(out, position.after_id)
    return bytes(out)


def _number(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _snapshot(out: bytearray, snapshot: Snapshot) -> None:
    _number(out, snapshot.xmax)
    _number(out, len(snapshot.in_progress))
    above = snapshot.xmax
    for xid in sorted(snapshot.in_progress, reverse=True):
        _number(out, above - xid)
        above = xid


def _decode(raw: bytes) -> Position:
    if raw[0] != VERSION:
        raise ValueError("another version")
    incarnation = Incarnation(int.from_bytes(raw[1:9], "big"), raw[9:17].hex())
    if len(raw) < 17:
        raise ValueError("truncated")
    numbers = _Numbers(raw[17:])
    taken_at = moment(numbers.take())
    seen = numbers.snapshot()
    if numbers.finished:
        return Position(seen, taken_at, incarnation)
    reading = numbers.snapshot()
    after_id = numbers.take()
    if not numbers.finished or after_id > MAX_XID:
        raise ValueError("more than a position")
    return Position(seen, taken_at, incarnation, reading, after_id)


class _Numbers:
    """The numbers of a token, one after the other."""

    def __init__(self, raw: Iterable[int]) -> None:
        self._raw = bytes(raw)
        self._at = 0

    @property
    def finished(self) -> bool:
        return self._at == len(self._raw)

    def take(self) -> int:
        value = shift = 0
        while True:
            byte = self._raw[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("too large a number")

    def snapshot(self) -> Snapshot:
        xmax = xid = self.take()
        count = self.take()
        if not 0 < xmax <= MAX_XID or count > len(self._raw):
            raise ValueError("not a snapshot")
        in_progress = []
        for _ in range(count):
            xid -= self.take()
            in_progress.append(xid)
        if count and (xid <= 0 or len(set(in_progress)) != count or in_progress[0] >= xmax):
            raise ValueError("not a snapshot")
        return Snapshot(xmax, frozenset(in_progress))

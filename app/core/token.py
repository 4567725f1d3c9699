"""Positions as opaque, URL-safe text that a client keeps and gives back.

Layout (version 2), numbers as unsigned LEB128, then base64url without padding:
version, mark of the user (4 bytes), system (8 bytes), life (8 bytes), device, taken_at in microseconds since
1970, seen, and, in mid-read, reading and after_id. A snapshot is xmax, the count of transactions in progress,
and their distances downwards from xmax. The device is 0 where no sync rows were for the holder.
"""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b
from typing import NamedTuple

from app.core.moment import microseconds, moment
from app.core.position import Incarnation, Position
from app.core.snapshot import MAX_XID, Snapshot

VERSION = 2
MAX_CHARS = 2048
_MAX_BYTES = MAX_CHARS * 3 // 4
_MARK = 4
_XIDS = 1 << 32
"""PostgreSQL's own ids of transactions, of which 0 is none (access/transam.h): it takes no such snapshot."""
_FIXED = 1 + _MARK + 8 + 8


class TokenError(ValueError):
    """The text is not a position token."""


class Holder(NamedTuple):
    """Who has a position: a user, and the device whose sync rows are among what was sent, if there is one."""

    user_id: str
    device_id: int | None = None


class Token(NamedTuple):
    """What a client keeps: a position, a mark of the user it is of, and the device with the sync rows.

    Without the two, who comes with another's position would be taken to have rows that it was never sent.
    """

    position: Position
    mark: bytes
    device_id: int | None

    @classmethod
    def of(cls, position: Position, holder: Holder) -> "Token":
        """The token of this position."""
        return cls(position, _mark(holder.user_id), holder.device_id)

    def is_of(self, user_id: str) -> bool:
        """Whether it is this user's."""
        return self.mark == _mark(user_id)

    def has_sync_of(self, holder: Holder) -> bool:
        """Whether the sync rows that are for the holder are among what it covers."""
        return holder.device_id is None or holder.device_id == self.device_id

    def text(self) -> str:
        """Write it in at most 2,048 characters.

        Where it would be longer, `seen` is lowered until it fits: the reader gets some rows again.
        """
        raw = _encode(self)
        position = self.position
        keep = len(position.seen.in_progress)
        while len(raw) > _MAX_BYTES:
            # Halving, and giving up mid-read first, since `reading` is worthless below `seen`.
            keep //= 2
            lowered = position.seen.lowered(keep)
            raw = _encode(self._replace(position=Position(lowered, position.taken_at, position.incarnation)))
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def encode(position: Position, holder: Holder) -> str:
    """Write the token of a position."""
    return Token.of(position, holder).text()


def decode(text: str) -> Token:
    """Read a token; raises TokenError for anything that `encode` did not write."""
    if len(text) > MAX_CHARS:
        raise TokenError("longer than a token")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        token = _decode(raw)
    except (ValueError, IndexError, OverflowError, binascii.Error) as error:
        raise TokenError("not a position token") from error
    if token.text() != text:
        raise TokenError("not in the canonical form")
    return token


def _mark(user_id: str) -> bytes:
    """What tells a user's tokens from another's: it keeps nobody from anything, and a mistake from harm."""
    return blake2b(user_id.encode(errors="replace"), digest_size=_MARK).digest()


def _encode(token: Token) -> bytes:
    position = token.position
    out = bytearray([VERSION]) + token.mark
    out += position.incarnation.system.to_bytes(8, "big") + bytes.fromhex(position.incarnation.life)
    _number(out, token.device_id or 0)
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


def _decode(raw: bytes) -> Token:
    if raw[0] != VERSION:
        raise ValueError("another version")
    if len(raw) < _FIXED:
        raise ValueError("truncated")
    mark, system, life = raw[1 : 1 + _MARK], raw[1 + _MARK : 9 + _MARK], raw[9 + _MARK : _FIXED]
    numbers = _Numbers(raw[_FIXED:])
    device_id = numbers.take()
    taken_at = moment(numbers.take())
    seen = numbers.snapshot()
    position = Position(seen, taken_at, Incarnation(int.from_bytes(system, "big"), life.hex()))
    if not numbers.finished:
        position = replace(position, reading=numbers.snapshot(), after_id=numbers.take())
    if not numbers.finished or max(device_id, position.after_id) > MAX_XID:
        raise ValueError("more than a token")
    return Token(position, mark, device_id or None)


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
        if not all(one % _XIDS for one in (xmax, *in_progress)):
            raise ValueError("not a snapshot: no transaction has this number")
        return Snapshot(xmax, frozenset(in_progress))

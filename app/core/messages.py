"""What a client gets: events, sync rows and control messages, encoded as UTF-8 JSON.

An event is encoded once for all connections of its user. `data` arrives as JSON text from
PostgreSQL and is never parsed here.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from app.core import moment

RowKey = tuple[int, int]
"""Which row: its id, and its time in microseconds since 1970.

The database can crash and lose what was committed without waiting for the disk, or for a standby. Then the
id of a row that has been sent is handed out again, and what is said of the one must not count for the other.
"""


class Message(NamedTuple):
    """An event or a sync row, ready to be sent.

    `id`, `xid` and `written_at`, in microseconds since 1970, are the row's. `origin` is the device that
    uploaded a sync row, if any. `redelivered`: it has been sent to this reader before, as
    `realtime_redeliveries` says, or a restart of the database repeats it; so it may come after younger ones.
    """

    id: int
    xid: int
    body: bytes
    written_at: int
    is_sync: bool = False
    origin: int | None = None
    redelivered: bool = False

    @property
    def key(self) -> RowKey:
        """Which row it is, also across crashes."""
        return self.id, self.written_at


def timestamp(at: datetime) -> str:
    """A moment that knows its zone, as `moment.timestamp` writes it."""
    return moment.timestamp(moment.microseconds(at))


def event(row_id: int, xid: int, event_type: str, data: str, created_at: int) -> Message:
    """Encode a row of `realtime_events`: its payload as JSON text, its time as microseconds since 1970."""
    at = moment.timestamp(created_at)
    body = f'{{"type":{_quoted(event_type)},"id":{row_id},"data":{data},"timestamp":"{at}"}}'
    return Message(row_id, xid, body.encode(), created_at)


def sync_row(
    row_id: int, xid: int, action_type: str, payload: str, created_at: int, origin: int | None
) -> Message:
    """Encode a row of `sync_queue`: its payload as JSON text, its time as microseconds since 1970."""
    at = moment.timestamp(created_at)
    body = (
        f'{{"type":"sync","id":{row_id},"data":{{"action_type":{_quoted(action_type)},'
        f'"payload":{payload},"created_at":"{at}"}},"timestamp":"{at}"}}'
    )
    return Message(row_id, xid, body.encode(), created_at, is_sync=True, origin=origin)


def connected(user_id: str, now: datetime) -> bytes:
    """The first message of every connection."""
    return _encode({"type": "connected", "user_id": user_id, "timestamp": timestamp(now)})


@dataclass(frozen=True, slots=True)
class Resumption:
    """What `connected` tells a client that asked for positions: its own, or why it could not be resumed."""

    position: str
    resumed: bool
    reason: str | None


def connected_for_more(
    user_id: str, now: datetime, *, epoch: str, heartbeat_ms: int, resumption: Resumption | None
) -> bytes:
    """The first message of a connection whose client asked for acks or positions.

    `heartbeat_ms` is how often the server pings; `resumption` is None where no positions were asked for.
    """
    message = {
        "type": "connected",
        "user_id": user_id,
        "timestamp": timestamp(now),
        "epoch": epoch,
        "heartbeat_ms": heartbeat_ms,
    }
    if resumption is not None:
        message |= {
            "resumed": resumption.resumed,
            "reason": resumption.reason,
            "position": resumption.position,
        }
    return _encode(message)


def with_position(body: bytes, token: str) -> bytes:
    """The same message with a position, which is URL-safe and needs no escaping."""
    return body[:-1] + b',"position":"' + token.encode() + b'"}'


def with_number(body: bytes, number: int, *, redelivered: bool) -> bytes:
    """The same message as it is sent to a client that acks."""
    return body[:-1] + b',"seq":%d,"redelivered":%b}' % (number, b"true" if redelivered else b"false")


def pong(now: datetime) -> bytes:
    """The answer to a client's heartbeat."""
    return _encode({"type": "pong", "timestamp": timestamp(now)})


def error(code: str, message: str, after_ms: int | None = None) -> bytes:
    """What was wrong, and what to do about it; `after_ms`: when it may pass."""
    told: dict[str, object] = {"type": "error", "code": code, "message": message}
    return _encode(told if after_ms is None else told | {"after_ms": after_ms})


def token_expiring(expires_in: float) -> bytes:
    """The client's token is taken for so many seconds more: send another one, or be closed then."""
    return _encode({"type": "token_expiring", "expires_in_ms": _milliseconds(expires_in)})


def authenticated(user_id: str, expires_in: float, now: datetime) -> bytes:
    """The client's new token was taken, and is for so many seconds."""
    return _encode(
        {
            "type": "authenticated",
            "user_id": user_id,
            "expires_in_ms": _milliseconds(expires_in),
            "timestamp": timestamp(now),
        }
    )


def reconnect(after_ms: int) -> bytes:
    """This process is going away: come back after so many milliseconds."""
    return _encode({"type": "reconnect", "after_ms": after_ms})


@lru_cache(maxsize=256)
def _quoted(label: str) -> str:
    """A type as JSON; of these there are few, and each stands in very many messages."""
    return json.dumps(label)


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 0)


def _encode(message: dict[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")

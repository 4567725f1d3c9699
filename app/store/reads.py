"""Read the outbox: the unseen rows of a pass, page by page, with the horizon they were read under."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, NamedTuple

import asyncpg

from app.core import messages
from app.core.messages import Message, RowKey
from app.core.moment import moment
from app.core.position import Horizon, Incarnation, Position
from app.core.snapshot import MAX_XID, Snapshot
from app.store import outbox_sql as sql

IDS_AT_ONCE = 16_384
"""How many ids of a long read are held: 128 KiB, whatever the number of rows."""

XIDS_AT_ONCE = sql.XIDS_AT_ONCE
_BY_ID = itemgetter(1)
EVERYTHING = Snapshot(MAX_XID)
NOTHING = Snapshot(1)

_NOT_HERE = "a position can only be read on a primary, outside of writing transactions"

Row = asyncpg.Record
"""A row as the driver hands it over: kind, id, xid, user_id, label, data, created_at, ref.

`created_at` is in microseconds since 1970. `ref`: of an event, `OF_ROOM` and `COLLAPSIBLE` as they apply; of
a sync row, the device that uploaded it; of a command, the device that it is about.
"""


OF_ROOM = 1
"""Marks an event that only those may see who are in its room."""
COLLAPSIBLE = 2
"""Marks an event that has a collapse key."""


class Unfit(Exception):  # noqa: N818 - the server's state, not a mistake
    """The server cannot say what a reader has: it is a standby, or the read had an xid of its own."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """Which rows a read wants: those that `seen` has not, up to `reading`, beyond `after_id`.

    `since` (across incarnations): also whatever was created then or later.
    """

    seen: Snapshot
    reading: Snapshot = EVERYTHING
    after_id: int = 0
    since: datetime | None = None

    def arguments(self) -> tuple[int, list[int], int, list[int], int]:
        """The first five arguments of every statement of `outbox_sql`."""
        return (
            self.seen.xmax,
            list(self.seen.in_progress),
            self.reading.xmax,
            list(self.reading.in_progress),
            self.after_id,
        )


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose rows, and which of them besides the unseen; `device_id` says which device reads."""

    user_id: str
    takes_sync: bool
    with_undelivered: bool
    device_id: int | None = None


class Found(NamedTuple):
    """Rows in id order, the horizon they were read under, and whether others follow."""

    horizon: Horizon
    rows: list[Row]
    more: bool
    facts: dict[str, Any]


async def few_unseen_by_tail(connection: asyncpg.Connection, seen: Snapshot, *, limit: int) -> Found | None:
    """Read all rows for the tail that `seen` has not, where they are few and small, as they mostly are.

    None where they are not, and at first in each server session: `unseen_by_tail` tells. Raises Unfit.
    """
    limit = min(limit, sql.FEW_ROWS)
    if seen.in_progress:
        arguments = (seen.xmax, limit, list(seen.in_progress))
        rows = await _fetch(connection, sql.TAIL_FEW_IN_PROGRESS, *arguments)
    else:
        rows = await _fetch(connection, sql.TAIL_FEW, seen.xmax, limit)
    if len(rows) > limit + 1:
        return None
    rows.sort(key=_BY_ID)
    horizon = _horizon(rows[0])
    if horizon is None:
        await _fetch(connection, sql.NOTE_IDENTITY)
        return None
    if any(row[5] is None and row[0] in "es" for row in rows[1:]):
        return None
    return Found(horizon, rows[1:], more=False, facts={})


async def unseen_by_tail(
    connection: asyncpg.Connection, wanted: Unseen, *, limit: int, limit_bytes: int
) -> Found | None:
    """Read the first rows for the tail: events, sync rows and commands of all users.

    None when the incarnation has no id yet (`create_incarnation`). Raises Unfit.
    """
    arguments = (*wanted.arguments(), limit, limit_bytes)
    if wanted.since is None:
        return await _read(connection, sql.TAIL, *arguments, limit=limit)
    return await _read(connection, sql.TAIL_OVERLAP, *arguments, wanted.since, limit=limit)


async def unseen_by_user(
    connection: asyncpg.Connection, wanted: Unseen, owner: Owner, *, limit: int, limit_bytes: int
) -> Found | None:
    """Read the first rows for one user.

    `facts` tell erased, purged_through, tried, ancestors, xids, owed_xids, revoked_before, and the generation
    of the owner's device. None when the incarnation has no id yet. Raises Unfit.
    """
    arguments = (*wanted.arguments(), limit, limit_bytes, *_of(owner), owner.device_id)
    if wanted.since is None:
        return await _read(connection, sql.USER, *arguments, limit=limit)
    return await _read(connection, sql.USER_OVERLAP, *arguments, wanted.since, limit=limit)


async def later_ids(connection: asyncpg.Connection, wanted: Unseen, owner: Owner | None) -> list[int]:
    """List the ids that follow `after_id`, at most IDS_AT_ONCE, in order."""
    arguments: tuple[Any, ...] = (*wanted.arguments(), IDS_AT_ONCE, 0)
    if owner is not None:
        arguments += _of(owner)
    if wanted.since is not None:
        arguments += (wanted.since,)
    statement = {
        (False, False): sql.TAIL_IDS,
        (False, True): sql.TAIL_IDS_OVERLAP,
        (True, False): sql.USER_IDS,
        (True, True): sql.USER_IDS_OVERLAP,
    }[owner is not None, wanted.since is not None]
    return await connection.fetchval(statement, *arguments) or []


async def rows_by_ids(
    connection: asyncpg.Connection, ids: Sequence[int], owner: Owner | None, *, limit_bytes: int
) -> Found | None:
    """Read rows by id, in order, as many as fit into `limit_bytes` and at least one.

    `more` is not told: rows may have been removed meanwhile, so an absent row says nothing. `facts` tell
    purged_through and, of an owner, erased.
    """
    return await _read(connection, sql.BY_IDS, ids, limit_bytes, None if owner is None else owner.user_id)


async def covered_undelivered(connection: asyncpg.Connection, position: Position, owner: Owner) -> list[Row]:
    """List a user's undelivered rows that a position of this incarnation covers, without their content.

    Sync rows only for a reader that takes them, and none that its own device uploaded.
    """
    reading = position.reading or NOTHING
    return await connection.fetch(
        sql.COVERED_UNDELIVERED,
        owner.user_id,
        position.seen.xmax,
        list(position.seen.in_progress),
        reading.xmax,
        list(reading.in_progress),
        position.after_id,
        owner.takes_sync,
        owner.device_id,
    )


async def horizon(connection: asyncpg.Connection) -> Horizon:
    """Read where the database is now; raises Unfit."""
    found = await _read(connection, sql.HORIZON)
    if found is None:
        await create_incarnation(connection)
        found = await _read(connection, sql.HORIZON)
    if found is None:
        raise Unfit("the database restarts too often to be read")
    return found.horizon


async def create_incarnation(connection: asyncpg.Connection) -> None:
    """Give this life of the database its random id, and put the cluster on record as an ancestor."""
    await connection.execute("INSERT INTO realtime_incarnation DEFAULT VALUES ON CONFLICT DO NOTHING")
    await connection.execute(
        """
        INSERT INTO realtime_ancestors (system_identifier, database_oid)
        SELECT (pg_control_system()).system_identifier, oid
        FROM pg_database WHERE datname = current_database()
        ON CONFLICT DO NOTHING
        """
    )


def marked(rows: Sequence[Row], mark: int) -> frozenset[int]:
    """Ids of the events among these rows that have a mark."""
    return frozenset(row[1] for row in rows if row[0] == "e" and row[7] & mark)


def key(row: Row) -> RowKey:
    """Which row it is, also across crashes."""
    return row[1], row[6]


def message(row: Row | tuple[Any, ...]) -> Message:
    """Encode an event or a sync row."""
    kind, row_id, xid, _, label, data, created_at, ref = row
    if kind == "s":
        return messages.sync_row(row_id, xid, label, data, created_at, ref)
    return messages.event(row_id, xid, label, data, created_at)


def _of(owner: Owner) -> tuple[str, bool, bool]:
    return owner.user_id, owner.with_undelivered, owner.takes_sync


async def _read(
    connection: asyncpg.Connection, statement: str, *arguments: Any, limit: int | None = None
) -> Found | None:
    rows = await _fetch(connection, statement, *arguments)
    horizon = _horizon(rows[0])
    if horizon is None:
        return None
    count = rows[0][1]
    # A full page may have followers; one that the bytes cut short has.
    return Found(horizon, rows[1:], count == limit or count > len(rows) - 1, _facts(rows[0][5]))


async def _fetch(connection: asyncpg.Connection, statement: str, *arguments: Any) -> list[Row]:
    try:
        rows: list[Row] = await connection.fetch(statement, *arguments)
    except asyncpg.FeatureNotSupportedError as error:
        # A standby does not let anybody look into the incarnation, which is unlogged.
        raise Unfit(_NOT_HERE) from error
    return rows


def _horizon(head: Row) -> Horizon | None:
    """What the first row of every answer tells; None when the incarnation has no id yet, or is not noted."""
    _, _, _, snapshot, identity, _, taken_at, unfit = head
    if unfit:
        raise Unfit(_NOT_HERE)
    if identity is None:
        return None
    return Horizon(Snapshot.parse(snapshot), moment(taken_at), Incarnation.of(identity))


def _facts(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    facts: dict[str, Any] = json.loads(text)
    if facts.get("purged_through") is not None:
        facts["purged_through"] = datetime.fromtimestamp(facts["purged_through"], UTC)
    if "ancestors" in facts:
        facts["ancestors"] = frozenset(int(system) % (1 << 64) for system in facts["ancestors"] or ())
    return facts

"""Devices: who has which, and what each has got."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg
from sqlalchemy import Text, cast, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from app.core.position import Horizon, Incarnation, Position
from app.core.snapshot import Snapshot
from app.store.database import Database
from app.store.tables import users_devices
from app.store.types import Snapshot as SnapshotType

MOBILE = frozenset({"ios", "android"})

_KNOWN = """id, generation, platform, position_seen::text, position_reading::text, position_after_id,
              position_taken_at, position_incarnation"""

# The command tells every process to close the older connections of the device; it and the bell are of
# the transaction that begins the generation.
_CONNECT = f"""
WITH device AS (
    UPDATE users_devices SET last_active = clock_timestamp(), generation = generation + 1
    WHERE user_id = $1 AND device_token = $2
    RETURNING {_KNOWN}
), replaced AS (
    INSERT INTO realtime_commands (kind, user_id, device_id, detail)
    SELECT 'device_replaced', $1, id, jsonb_build_object('generation', generation) FROM device
    RETURNING realtime_wake('realtime_events', $1)
)
SELECT device.* FROM device, replaced"""

_FIND = f"SELECT {_KNOWN} FROM users_devices WHERE user_id = $1 AND device_token = $2"


class UnknownUser(Exception):  # noqa: N818 - what the table says, not a mistake
    """No such user: a device belongs to a row of `users`."""


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device as its owner sees it; the token is not told again."""

    id: int
    user_id: str
    platform: str
    last_active: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device and what it has got; it has connected `generation` times."""

    id: int
    generation: int
    platform: str
    position: Position | None

    @property
    def takes_sync(self) -> bool:
        """Whether sync rows are for it."""
        return self.platform in MOBILE


_SHOWN = (
    users_devices.c.id,
    users_devices.c.user_id,
    users_devices.c.platform,
    users_devices.c.last_active,
    users_devices.c.created_at,
)


async def connect(connection: asyncpg.Connection, user_id: str, device_token: str) -> KnownDevice | None:
    """Mark a device active and begin its next generation; None when the user has no such device.

    Cancelled, it does neither, also when the statement is on its way already.
    """
    async with connection.transaction():
        row = await connection.fetchrow(_CONNECT, user_id, device_token)
    return None if row is None else _known(row)


async def find(connection: asyncpg.Connection, user_id: str, device_token: str) -> KnownDevice | None:
    """Look a device up and leave it as it is; None when the user has no such device."""
    row = await connection.fetchrow(_FIND, user_id, device_token)
    return None if row is None else _known(row)


async def is_registered(connection: asyncpg.Connection, device_token: str) -> bool:
    """Whether anybody has a device with this token."""
    there: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM users_devices WHERE device_token = $1)", device_token
    )
    return there


async def register(
    database: Database,
    user_id: str,
    device_token: str,
    platform: str,
    previous_token: str | None,
    now: Horizon,
) -> tuple[DeviceRow, bool]:
    """Register or refresh a device; returns it and whether it is new.

    `now` becomes the position of a device that is new to this user; it must have been read before.
    `previous_token` renames, so that the position stays when a push token rotates. Raises UnknownUser.
    """
    start = {
        # The driver takes a snapshot in parts; as text it needs a cast.
        "position_seen": cast(literal(str(now.snapshot), Text), SnapshotType),
        "position_reading": None,
        "position_after_id": 0,
        "position_taken_at": now.taken_at,
        "position_incarnation": str(now.incarnation),
    }
    table = users_devices
    try:
        async with database.transaction() as transaction:
            if previous_token is not None and previous_token != device_token:
                renamed = (
                    select(table.c.id)
                    .where(table.c.user_id == user_id, table.c.device_token == previous_token)
                    .with_for_update()
                )
                if (device_id := await transaction.scalar(renamed)) is not None:
                    await transaction.execute(delete(table).where(table.c.device_token == device_token))
                    await transaction.execute(
                        update(table).where(table.c.id == device_id).values(device_token=device_token)
                    )
            known = (
                update(table)
                .where(table.c.device_token == device_token, table.c.user_id == user_id)
                .values(platform=platform, last_active=func.clock_timestamp())
                .returning(*_SHOWN)
            )
            if (row := (await transaction.execute(known)).one_or_none()) is not None:
                return DeviceRow(*row), False
            fresh = {"user_id": user_id, "platform": platform, **start}
            added = insert(table).values(device_token=device_token, **fresh)
            moved = added.on_conflict_do_update(
                index_elements=[table.c.device_token],
                set_={
                    **fresh,
                    "last_active": func.clock_timestamp(),
                    "created_at": func.clock_timestamp(),
                    "generation": table.c.generation + 1,
                },
            ).returning(*_SHOWN)
            return DeviceRow(*(await transaction.execute(moved)).one()), True
    except IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) != asyncpg.ForeignKeyViolationError.sqlstate:
            raise  # somebody else registered the token meanwhile: to be tried again
        raise UnknownUser(user_id) from error


async def of_user(database: Database, user_id: str) -> list[DeviceRow]:
    """A user's devices, oldest first."""
    statement = select(*_SHOWN).where(users_devices.c.user_id == user_id).order_by(users_devices.c.id)
    async with database.transaction() as transaction:
        return [DeviceRow(*row) for row in await transaction.execute(statement)]


async def remove(database: Database, user_id: str, device_id: int) -> bool:
    """Remove a user's device; whether there was one."""
    statement = delete(users_devices).where(
        users_devices.c.user_id == user_id, users_devices.c.id == device_id
    )
    async with database.transaction() as transaction:
        return (await transaction.execute(statement)).rowcount == 1


def _known(row: asyncpg.Record) -> KnownDevice:
    position = None
    if row["position_seen"] is not None:
        reading = row["position_reading"]
        position = Position(
            Snapshot.parse(row["position_seen"]),
            row["position_taken_at"],
            Incarnation.parse(row["position_incarnation"]),
            None if reading is None else Snapshot.parse(reading),
            row["position_after_id"] or 0,
        )
    return KnownDevice(row["id"], row["generation"], row["platform"], position)

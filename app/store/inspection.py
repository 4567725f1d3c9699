"""Whether this database is one the service can work on, and what is missing."""

from dataclasses import dataclass

import asyncpg

REVISION = "attach_triggers"
"""The newest migration; a test holds it equal to alembic's head."""

TRIGGERS = {
    "trigger_mood_realtime": "moods",
    "trigger_chat_realtime": "chat_messages",
    "trigger_journal_realtime": "journal_entries",
    "trigger_sync_realtime": "sync_queue",
    "trigger_user_deleted_realtime": "users",
    "trigger_room_left_realtime": "room_participants",
    "trigger_device_removed_realtime": "users_devices",
}

ADOPT = """
UPDATE {table} SET xid = '3' WHERE id IN (
    SELECT id FROM {table} WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
    LIMIT $1 FOR UPDATE SKIP LOCKED)"""
ADOPTION_LOCK = 0x6D76_7274_6164_6F70


class Unusable(Exception):  # noqa: N818 - the database's state; the text says what to do about it
    """The service cannot work on this database until somebody does what the text says."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What is missing on a database that is usable nevertheless."""

    triggers: tuple[str, ...]
    """Triggers that are absent or disabled."""


async def inspect(connection: asyncpg.Connection) -> Findings:
    """Look at a database that has just been reached; raises Unusable with one line that says what to do."""
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        raise Unusable("the database is a standby: let DATABASE_URL lead to the primary")
    try:
        revision = await connection.fetchval("SELECT version_num FROM realtime_alembic_version")
    except asyncpg.UndefinedTableError:
        raise Unusable("the database is not migrated: run `alembic upgrade head`") from None
    except asyncpg.InsufficientPrivilegeError:
        raise Unusable("the role may not read the service's tables: run ops/grants.sql") from None
    if revision != REVISION:
        raise Unusable(
            f"the database is at migration {revision} and should be at {REVISION}: run `alembic upgrade head`"
        )
    in_place = await connection.fetch(
        """
        SELECT t.tgname FROM pg_trigger AS t
        WHERE t.tgname = ANY($1::text[]) AND t.tgenabled IN ('O', 'A')
          AND t.tgrelid IN (SELECT to_regclass(name) FROM unnest($2::text[]) AS name)
        """,
        list(TRIGGERS),
        list(TRIGGERS.values()),
    )
    present = {row[0] for row in in_place}
    return Findings(tuple(f"{name} on {table}" for name, table in TRIGGERS.items() if name not in present))


async def adopt_foreign_rows(connection: asyncpg.Connection, *, batch: int = 5000) -> int:
    """Mark rows with xids beyond this cluster's as seen by all; returns how many.

    A dump restored here, or replication, brings them. Small batches, each a transaction of its own; one
    process at a time, the others find nothing left.
    """
    adopted = 0
    for table in ("realtime_events", "sync_queue", "realtime_commands"):
        while True:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", ADOPTION_LOCK)
                status = await connection.execute(ADOPT.format(table=table), batch)
            count = int(status.rpartition(" ")[2])
            adopted += count
            if count < batch:
                break
    return adopted

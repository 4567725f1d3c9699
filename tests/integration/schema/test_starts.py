"""`alembic upgrade head` from each of the three states a database can be in."""

import json
from typing import Any

import asyncpg
import pytest

from tests.integration.schema.databases import alembic, contents, load
from tests.support import host
from tests.support.postgres import Database

OURS = ("realtime_events", "sync_queue", "users_devices")
HOST_TABLES = (
    "users",
    "moods",
    "chat_rooms",
    "room_participants",
    "chat_messages",
    "journal_entries",
    "badges",
    "alembic_version",
)
TRIGGERS = {
    "trigger_mood_realtime",
    "trigger_chat_realtime",
    "trigger_journal_realtime",
    "trigger_sync_realtime",
    "trigger_user_deleted_realtime",
    "trigger_room_left_realtime",
    "trigger_device_removed_realtime",
}


async def shape(connection: asyncpg.Connection, table: str) -> dict[str, Any]:
    """Columns, constraints and indexes of a table as the catalogs tell them."""
    columns = await connection.fetch(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)"
        " FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
        " WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1",
        table,
    )
    constraints = await connection.fetch(
        "SELECT conname, pg_get_constraintdef(oid), convalidated"
        " FROM pg_constraint WHERE conrelid = $1::regclass ORDER BY 1",
        table,
    )
    indexes = await connection.fetch(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid"
        " FROM pg_index WHERE indrelid = $1::regclass ORDER BY 1",
        table,
    )
    return {
        "columns": [tuple(row) for row in columns],
        "constraints": [tuple(row) for row in constraints],
        "indexes": [tuple(row) for row in indexes if not row[0].startswith("idx_")],
        "options": await connection.fetchval(
            "SELECT reloptions FROM pg_class WHERE oid = $1::regclass", table
        ),
    }


async def definitions(connection: asyncpg.Connection, tables: tuple[str, ...]) -> dict[str, Any]:
    """The shapes of the tables."""
    return {table: await shape(connection, table) for table in tables}


async def triggers(connection: asyncpg.Connection) -> set[str]:
    """The names of all triggers that are on."""
    rows = await connection.fetch("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O'")
    return {row["tgname"] for row in rows}


@pytest.mark.every_major
async def test_an_empty_database_gets_every_table_and_trigger(database: Database) -> None:
    """A fresh machine needs nothing but `alembic upgrade head`."""
    connection = await database.connect()

    await host.log_mood(connection, "user123")

    assert await triggers(connection) == TRIGGERS
    assert await connection.fetchval("SELECT user_id FROM realtime_events") == "user123"


@pytest.mark.every_major
async def test_the_metadata_is_the_database(database: Database) -> None:
    """`alembic check` finds nothing to do after a fresh start."""
    assert "No new upgrade operations" in await alembic(database, "check")


async def test_a_missing_index_is_found_by_the_check(database: Database) -> None:
    """The control of the test above: the comparison does compare."""
    connection = await database.connect()
    await connection.execute("DROP INDEX realtime_events_xid")

    with pytest.raises(Exception, match="realtime_events_xid"):
        await alembic(database, "check")


@pytest.mark.every_major
async def test_the_tables_of_a_host_are_left_as_they_are(host_database: Database) -> None:
    """Rows, columns, keys and the other alembic history survive; only triggers and keys to users come."""
    connection = await host_database.connect()
    before = await contents(host_database, *HOST_TABLES), await definitions(connection, HOST_TABLES)

    await alembic(host_database, "upgrade", "head")

    after = await contents(host_database, *HOST_TABLES), await definitions(connection, HOST_TABLES)
    assert after == before
    assert await triggers(connection) == TRIGGERS
    assert await connection.fetchval("SELECT count(*) FROM realtime_events") == 0
    assert "No new upgrade operations" in await alembic(host_database, "check")


@pytest.mark.every_major
async def test_rows_of_wider_host_tables_cause_events(host_database: Database) -> None:
    """More columns, zoneless times and keys of the host's own do not disturb the triggers."""
    await alembic(host_database, "upgrade", "head")
    connection = await host_database.connect()

    await host.log_mood(connection, "ann")
    await host.post_message(connection, "ann", "garden")
    await host.write_entry(connection, "bob")

    rows = await connection.fetch("SELECT event_type, user_id FROM realtime_events ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("mood_update", "ann"),
        ("chat_message", "ann"),
        ("chat_message", "bob"),
        ("journal_update", "bob"),
    ]


async def test_a_host_table_without_a_needed_column_stops_the_migration(host_database: Database) -> None:
    """A trigger that reads a missing column would fail every insert of the host's."""
    connection = await host_database.connect()
    await connection.execute("ALTER TABLE moods RENAME score TO value")

    with pytest.raises(Exception, match="table moods has no column score"):
        await alembic(host_database, "upgrade", "head")

    await connection.execute("INSERT INTO moods (user_id, value) VALUES ('ann', 5)")


@pytest.mark.every_major
async def test_every_row_of_the_predecessor_is_kept(predecessor_database: Database) -> None:
    """Adoption widens and fills, and drops nothing, not even rows of nobody."""
    await alembic(predecessor_database, "upgrade", "head")
    connection = await predecessor_database.connect()

    events = await connection.fetch(
        "SELECT id, event_type, user_id, payload, delivered, xid::text, settled_as FROM realtime_events ORDER BY id"
    )
    sync_rows = await connection.fetch(
        "SELECT id, user_id, action_type, payload, synced, xid::text FROM sync_queue ORDER BY id"
    )
    devices = await connection.fetch(
        "SELECT id, user_id, device_token, platform, generation FROM users_devices ORDER BY id"
    )

    assert [tuple(row) for row in events] == [
        (1, "mood_update", "ann", '{"mood_score": 7}', True, "3", None),
        (2, "mood_update", "ann", '{"mood_score": 8}', False, "3", None),
        (3, "unknown", "", "{}", False, "3", "expired"),
        (700, "chat_message", "bob", '{"message_id": "m1"}', False, "3", None),
    ]
    assert [tuple(row) for row in sync_rows] == [
        (1, "ann", "refresh", '{"n": 1}', False, "3"),
        (2, None, "unknown", "{}", True, "3"),
        (900, "bob", "refresh", '{"n": 2}', False, "3"),
    ]
    assert [tuple(row) for row in devices] == [
        (1, "ann", "token-ann", "ios", 0),
        (2, "bob", "unknown-2", None, 0),
        (3, None, "token-of-nobody", "web", 0),
    ]


async def test_zoneless_times_of_the_predecessor_are_utc(predecessor_database: Database) -> None:
    """Whatever the server's time zone, the predecessor wrote UTC."""
    connection = await predecessor_database.connect()
    await connection.execute(f"ALTER DATABASE {predecessor_database.name} SET timezone = 'Asia/Tokyo'")

    await alembic(predecessor_database, "upgrade", "head")

    for table, column in (
        ("realtime_events", "created_at"),
        ("sync_queue", "created_at"),
        ("users_devices", "last_active"),
    ):
        moment = await connection.fetchval(f"SELECT {column} FROM {table} WHERE id = 1")
        assert moment.isoformat() == "2025-12-07T13:18:47.812000+00:00"


@pytest.mark.every_major
async def test_new_ids_lie_beyond_every_adopted_one(predecessor_database: Database) -> None:
    """Events and sync rows take their ids from one sequence, above those of both old tables."""
    await alembic(predecessor_database, "upgrade", "head")
    connection = await predecessor_database.connect()

    await host.log_mood(connection, "ann")
    sync_id = await host.queue_sync(connection, "ann")

    event_id = await connection.fetchval("SELECT max(id) FROM realtime_events")
    assert event_id > 900
    assert sync_id > event_id


async def test_the_predecessors_triggers_are_replaced(predecessor_database: Database) -> None:
    """One insert causes one event, and its bell tells no more than whose it is."""
    await alembic(predecessor_database, "upgrade", "head")
    connection = await predecessor_database.connect()
    heard: list[Any] = []
    listener = await predecessor_database.connect()
    await listener.add_listener("mood_events", lambda *told: heard.append(told[-1]))

    await host.log_mood(connection, "ann")
    await listener.fetchval("SELECT 1")

    assert [json.loads(payload) for payload in heard] == [{"user_id": "ann"}]
    assert await triggers(connection) == TRIGGERS
    assert await connection.fetchval("SELECT count(*) FROM realtime_events WHERE xid <> '3'") == 1


@pytest.mark.every_major
async def test_adopted_tables_are_like_new_ones_and_say_so(
    predecessor_database: Database, database: Database
) -> None:
    """The same columns, constraints, keys, indexes and settings everywhere, and a comment."""
    await alembic(predecessor_database, "upgrade", "head")
    adopted = await predecessor_database.connect()
    fresh = await database.connect()

    for table in OURS:
        assert await shape(adopted, table) == await shape(fresh, table)
        comment = await adopted.fetchval("SELECT obj_description($1::regclass, 'pg_class')", table)
        assert comment.startswith("Adopted by MindVibe Real-Time")
    assert "No new upgrade operations" in await alembic(predecessor_database, "check")


async def test_a_role_that_could_queue_sync_rows_still_can_after_adoption(
    predecessor_database: Database,
) -> None:
    """Ids come from another sequence now; whoever may insert may use it."""
    owner = await predecessor_database.connect()
    role = f"api_{predecessor_database.name}"
    await owner.execute(f"CREATE ROLE {role} LOGIN")
    try:
        await owner.execute(
            f"GRANT INSERT, SELECT ON sync_queue TO {role}; GRANT USAGE ON sync_queue_id_seq TO {role}"
        )
        await alembic(predecessor_database, "upgrade", "head")

        api = await predecessor_database.connect(user=role)

        assert await host.queue_sync(api, "ann") > 900
    finally:
        await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_orphaned_rows_do_not_stop_adoption(predecessor_database: Database) -> None:
    """Rows of users that are gone are kept; the key holds for new rows."""
    connection = await predecessor_database.connect()
    await connection.execute("ALTER TABLE sync_queue DROP CONSTRAINT sync_queue_user_id_fkey")
    await connection.execute("INSERT INTO sync_queue (user_id, action_type) VALUES ('gone', 'refresh')")

    await alembic(predecessor_database, "upgrade", "head")

    assert await connection.fetchval("SELECT count(*) FROM sync_queue WHERE user_id = 'gone'") == 1
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await host.queue_sync(connection, "gone")


async def test_a_device_without_uniqueness_in_the_predecessor_gets_it(predecessor_database: Database) -> None:
    """Where tokens were unique by habit only, the migration builds the index."""
    connection = await predecessor_database.connect()
    await connection.execute("ALTER TABLE users_devices DROP CONSTRAINT users_devices_device_token_key")

    await alembic(predecessor_database, "upgrade", "head")

    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(
            "INSERT INTO users_devices (user_id, device_token, platform) VALUES ('bob', 'token-ann', 'web')"
        )
    assert "No new upgrade operations" in await alembic(predecessor_database, "check")


async def test_the_service_lives_in_the_schema_of_the_migration(empty_database: Database) -> None:
    """Everything, the functions' search_path too, follows the role's first schema."""
    connection = await empty_database.connect()
    await connection.execute(
        f"CREATE SCHEMA mind; ALTER DATABASE {empty_database.name} SET search_path = mind"
    )
    await load(empty_database, "mindvibe.sql")

    await alembic(empty_database, "upgrade", "head")
    elsewhere = await empty_database.connect(server_settings={"search_path": "public"})
    await elsewhere.execute("INSERT INTO mind.moods (user_id, score) VALUES ('ann', 7)")

    assert await elsewhere.fetchval("SELECT count(*) FROM mind.realtime_events") == 1
    assert "No new upgrade operations" in await alembic(empty_database, "check")

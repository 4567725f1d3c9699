"""`alembic downgrade base` and the way back."""

import asyncpg
import pytest

from tests.integration.schema.databases import alembic, contents
from tests.support import host
from tests.support.postgres import Database

HOST_TABLES = ("users", "moods", "chat_rooms", "room_participants", "chat_messages", "journal_entries")
ADOPTED = ("realtime_events", "sync_queue", "users_devices")


async def tables(connection: asyncpg.Connection) -> set[str]:
    """The names of all tables, views and sequences that are not part of a column."""
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'S')"
        " AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'a')"
    )
    return {row["relname"] for row in rows}


async def leftovers(connection: asyncpg.Connection) -> list[str]:
    """Functions and triggers that are still there."""
    rows = await connection.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
    )
    return [row[0] for row in rows]


async def test_a_downgrade_leaves_only_the_hosts_tables(host_database: Database) -> None:
    """Functions, triggers, outbox and empty tables of ours go; the host's rows stay."""
    connection = await host_database.connect()
    before = await contents(host_database, *HOST_TABLES)
    names = await tables(connection)

    await alembic(host_database, "upgrade", "head")
    await alembic(host_database, "downgrade", "base")

    assert await contents(host_database, *HOST_TABLES) == before
    assert await tables(connection) == names | {"realtime_alembic_version"}
    assert await leftovers(connection) == []


async def test_tables_made_for_an_empty_database_are_the_hosts_too(database: Database) -> None:
    """Whoever made moods, a downgrade does not drop it."""
    connection = await database.connect()
    await host.log_mood(connection, "ann")

    await alembic(database, "downgrade", "base")

    assert set(HOST_TABLES) <= await tables(connection)
    assert await connection.fetchval("SELECT count(*) FROM moods") == 1


@pytest.mark.every_major
async def test_filled_devices_and_sync_rows_outlive_a_downgrade(database: Database) -> None:
    """They are the users' and taken up again by the next upgrade, with the ids and transactions they had."""
    connection = await database.connect()
    await host.add_user(connection, "ann")
    await host.queue_sync(connection, "ann")
    await connection.execute(
        "INSERT INTO users_devices (user_id, device_token, platform) VALUES ('ann', 't', 'ios')"
    )
    kept = await contents(database, "sync_queue", "users_devices")

    await alembic(database, "downgrade", "base")
    await host.queue_sync(connection, "ann")
    await alembic(database, "upgrade", "head")

    again = await contents(database, "sync_queue", "users_devices")
    assert set(kept["sync_queue"]) < set(again["sync_queue"])
    assert again["users_devices"] == kept["users_devices"]
    assert await host.queue_sync(connection, "ann") > 2
    assert "No new upgrade operations" in await alembic(database, "check")


@pytest.mark.every_major
async def test_adopted_tables_outlive_a_downgrade(predecessor_database: Database) -> None:
    """Even an adopted outbox is kept, takes rows, and is adopted again without a change."""
    await alembic(predecessor_database, "upgrade", "head")
    connection = await predecessor_database.connect()
    await host.log_mood(connection, "ann")
    before = await contents(predecessor_database, *HOST_TABLES, *ADOPTED)

    await alembic(predecessor_database, "downgrade", "base")
    assert await contents(predecessor_database, *HOST_TABLES, *ADOPTED) == before
    await host.log_mood(connection, "ann")
    await alembic(predecessor_database, "upgrade", "head")

    assert await contents(predecessor_database, *ADOPTED) == {name: before[name] for name in ADOPTED}
    await host.log_mood(connection, "ann")
    assert await connection.fetchval("SELECT max(id) FROM realtime_events") > 900
    assert "No new upgrade operations" in await alembic(predecessor_database, "check")

"""Migrations that meet other migrations, their own remains, and a host at work."""

import asyncio
import time
from typing import Any

import asyncpg
import pytest

from tests.integration.schema.databases import alembic
from tests.support import host
from tests.support.postgres import Database, migrate

LONGEST_WAIT = 5.0
"""Seconds a host's insert may take while we migrate: ten times our patience with a lock."""


async def wait_until(connection: asyncpg.Connection, question: str, *values: Any) -> None:
    """Ask until the answer is true; the test's timeout is the limit."""
    while not await connection.fetchval(question, *values):  # noqa: ASYNC110  (the server cannot tell us)
        await asyncio.sleep(0.02)


async def test_two_processes_migrate_at_once(host_database: Database) -> None:
    """One works, the other waits and finds nothing left to do; index builds do not deadlock with the wait."""
    await asyncio.gather(*(alembic(host_database, "upgrade", "head") for _ in range(3)))

    connection = await host_database.connect()
    assert await connection.fetchval("SELECT count(*) FROM realtime_alembic_version") == 1
    assert "No new upgrade operations" in await alembic(host_database, "check")


async def test_two_processes_adopt_at_once(predecessor_database: Database) -> None:
    """The same where indexes are built concurrently, which waits for every other snapshot."""
    await asyncio.gather(*(alembic(predecessor_database, "upgrade", "head") for _ in range(2)))

    assert "No new upgrade operations" in await alembic(predecessor_database, "check")


async def test_a_migration_broken_half_way_can_be_run_again(predecessor_database: Database) -> None:
    """Every step finds what an earlier run has left, a half-built index included."""
    connection = await predecessor_database.connect()
    await leave_invalid_index(predecessor_database)
    for number, breaking_point in enumerate(
        ("ALTER TABLE", "CREATE INDEX", "CREATE VIEW", "CREATE FUNCTION", "CREATE TRIGGER")
    ):
        await connection.execute(
            f"CREATE FUNCTION breaks_{number}() RETURNS event_trigger LANGUAGE plpgsql AS $$"
            f" BEGIN IF tg_tag = '{breaking_point}' THEN RAISE 'broken off at {breaking_point}'; END IF; END $$;"
            f" CREATE EVENT TRIGGER break_{number} ON ddl_command_end EXECUTE FUNCTION breaks_{number}()"
        )
        with pytest.raises(Exception, match=f"broken off at {breaking_point}"):
            await alembic(predecessor_database, "upgrade", "head")
        await connection.execute(f"DROP EVENT TRIGGER break_{number}; DROP FUNCTION breaks_{number}()")

    await alembic(predecessor_database, "upgrade", "head")

    assert await connection.fetchval("SELECT bool_and(indisvalid) FROM pg_index")
    assert await connection.fetchval("SELECT count(*) FROM realtime_events") == 4
    assert "No new upgrade operations" in await alembic(predecessor_database, "check")


async def leave_invalid_index(database: Database) -> None:
    """Break off a concurrent build of one of our indexes, as a lost connection would."""
    blocker, builder, watcher = [await database.connect() for _ in range(3)]
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE users_devices IN ROW EXCLUSIVE MODE")
        await builder.execute("SET lock_timeout = '50ms'; DROP INDEX IF EXISTS users_devices_user")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await builder.execute("CREATE INDEX CONCURRENTLY users_devices_user ON users_devices (user_id)")
    assert await watcher.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 1


@pytest.mark.every_major
async def test_a_host_keeps_writing_while_a_long_transaction_holds_up_the_migration(
    predecessor_database: Database,
) -> None:
    """A transaction that is open for long delays the migration, never the inserts of others."""
    open_host, other_host, watcher = [await predecessor_database.connect() for _ in range(3)]
    longest = 0.0
    async with open_host.transaction():
        await host.log_mood(open_host, "ann")
        await host.queue_sync(open_host, "ann")
        migration = asyncio.create_task(alembic(predecessor_database, "upgrade", "head"))
        await wait_until(
            watcher,
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database()))",
        )
        for _ in range(100):
            started = time.monotonic()
            await host.queue_sync(other_host, "bob")
            await host.log_mood(other_host, "bob")
            longest = max(longest, time.monotonic() - started)
        assert not migration.done()
    await migration

    assert longest < LONGEST_WAIT
    assert await watcher.fetchval("SELECT count(*) FROM sync_queue") == 3 + 1 + 100


async def test_a_waiting_alter_blocks_the_inserts_of_a_host(predecessor_database: Database) -> None:
    """The control of the test above: DDL that waits for a lock makes inserts wait behind it."""
    open_host, other_host, impatient, watcher = [await predecessor_database.connect() for _ in range(4)]
    async with open_host.transaction():
        await host.queue_sync(open_host, "ann")
        alter = asyncio.create_task(impatient.execute("ALTER TABLE sync_queue ADD COLUMN late int"))
        await wait_until(
            watcher,
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'sync_queue'::regclass)",
        )
        await other_host.execute("SET lock_timeout = '1s'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await host.queue_sync(other_host, "bob")
    await alter


async def test_a_busy_host_loses_no_insert_while_we_migrate_and_go_back(host_database: Database) -> None:
    """Hosts insert without a pause through upgrade, downgrade and upgrade; none fails, none waits long."""
    stop = asyncio.Event()
    written = [0, 0, 0]
    longest = 0.0

    async def work(number: int) -> None:
        nonlocal longest
        connection = await host_database.connect()
        while not stop.is_set():
            started = time.monotonic()
            await host.log_mood(connection, "ann")
            await host.post_message(connection, "bob", "garden")
            longest = max(longest, time.monotonic() - started)
            written[number] += 1

    hosts = [asyncio.create_task(work(number)) for number in range(len(written))]
    for step in (("upgrade", "head"), ("downgrade", "base"), ("upgrade", "head")):
        await alembic(host_database, *step)
    stop.set()
    await asyncio.gather(*hosts)

    connection = await host_database.connect()
    assert await connection.fetchval("SELECT count(*) FROM moods") == 2 + sum(written)
    assert longest < LONGEST_WAIT


@pytest.mark.parametrize(
    ("rights", "complaint"),
    [
        ("SELECT, REFERENCES", "run the migration as the owner of the host's tables"),
        # It could attach them, and every chat message would fail.
        ("TRIGGER, REFERENCES", "may not read users"),
    ],
)
async def test_a_role_without_the_rights_is_told_so(
    host_database: Database, rights: str, complaint: str
) -> None:
    """One line says what is missing, before anything of the host's can fail for it."""
    owner = await host_database.connect()
    role = f"stranger_{host_database.name}"
    await owner.execute(
        f"CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role};"
        f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {role}"
    )
    try:
        url = host_database.cluster.url(host_database.name, user=role)

        with pytest.raises(Exception, match=complaint):
            await asyncio.to_thread(migrate, url)
    finally:
        await owner.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")

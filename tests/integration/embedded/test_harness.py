"""The test harness itself: databases of their own, on every major version."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.embedded import processes
from tests.support.postgres import restore_files


@pytest.mark.every_major
async def test_a_database_comes_up_on_every_major_version(empty_database, major):
    """The server behind a test is of the version the test was asked to run on."""
    connection = await empty_database.connect()

    assert major == connection.get_server_version().major


async def test_an_empty_database_has_no_table(empty_database):
    """What the tests see in an empty database is nothing."""
    connection = await empty_database.connect()

    tables = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    )

    assert tables == []


async def test_a_database_is_migrated(database):
    """A test's database has what `alembic upgrade head` makes."""
    connection = await database.connect()

    assert await connection.fetchval("SELECT to_regclass('realtime_alembic_version')") is not None


async def test_two_databases_of_a_test_share_nothing(new_database):
    """What is written to one database is not in the other."""
    first, second = await new_database(migrated=False), await new_database(migrated=False)
    await (await first.connect()).execute("CREATE TABLE seen ()")

    assert await (await second.connect()).fetchval("SELECT to_regclass('seen')") is None


async def test_sqlalchemy_and_psql_take_the_same_address(empty_database):
    """One form of URL serves asyncpg, SQLAlchemy and psql."""
    engine = create_async_engine(empty_database.sqlalchemy_url)
    async with engine.connect() as connection:
        by_sqlalchemy = await connection.scalar(text("SELECT current_database()"))
    await engine.dispose()
    by_psql = empty_database.cluster.tool(
        "psql", empty_database.url, "-XAtc", "SELECT current_database()"
    ).strip()

    assert (empty_database.name, empty_database.name) == (by_sqlalchemy, by_psql)


async def test_a_killed_private_cluster_recovers(private_cluster, new_database):
    """A kill ends every process of the server, and what was committed is there after a start."""
    cluster = private_cluster(tcp=True)
    database = await new_database(cluster, migrated=False)
    connection = await database.connect(tcp=True)
    await connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    cluster.kill()

    assert not cluster.is_running
    cluster.start()
    assert await (await database.connect(tcp=True)).fetchval("SELECT one FROM kept") == 1


async def test_a_standby_streams_and_can_be_promoted(private_cluster, standby_of):
    """A standby gets what is committed on its primary, and takes writes after promotion."""
    primary = private_cluster()
    standby = standby_of(primary, tcp=True)
    primary.tool("psql", "-c", "CREATE TABLE kept AS SELECT 1 AS one")
    position = primary.tool("psql", "-XAtc", "SELECT pg_current_wal_flush_lsn()").strip()
    replayed = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
    while standby.tool("psql", "-XAtc", replayed).strip() != "t":
        pass

    assert standby.tool("psql", "-XAtc", "SELECT pg_is_in_recovery(), one FROM kept").strip() == "t|1"
    standby.tool("psql", "-XAtc", "SELECT pg_promote()")
    standby.tool("psql", "-XAtc", "INSERT INTO kept VALUES (2)")


async def test_a_cold_copy_comes_up_and_can_be_brought_back(private_cluster, cold_copy):
    """A copy holds what was there when it was taken, also in place of the original files."""
    cluster = private_cluster()
    cluster.tool("psql", "-c", "CREATE TABLE kept AS SELECT 1 AS one")
    cluster.stop()
    copy = cold_copy(cluster)
    cluster.start()
    cluster.tool("psql", "-c", "UPDATE kept SET one = 2")
    cluster.stop()
    restore_files(copy, cluster)

    for server in (cluster, copy):
        server.start()
        assert server.tool("psql", "-XAtc", "SELECT one FROM kept").strip() == "1"


async def test_where_there_is_no_proc_a_server_is_killed_all_the_same(private_cluster, monkeypatch):
    """On systems without /proc the processes are found by `ps`."""
    cluster = private_cluster()
    monkeypatch.setattr(processes, "_PROC", Path("/nonexistent"))
    cluster.kill()

    assert not cluster.is_running
    cluster.start()

"""Alembic's environment: one session, one advisory lock, and none of the host's tables in sight."""

import asyncio
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging.config import fileConfig
from typing import Any

import asyncpg
from catalog import ADOPTED
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from alembic import context, util
from app.settings import Environment, Settings
from app.store.database import address, dsn
from app.store.tables import metadata

VERSION_TABLE = "realtime_alembic_version"
OLDEST_SERVER = 15
MIGRATION_LOCK = 0x6D76_7274_6D69_6772
LOCK_POLL = 0.2
"""Seconds between two questions whether the other migration has ended."""


@contextmanager
def database_url() -> Iterator[str]:
    """The address to migrate: the caller's, `DATABASE_URL`, or the embedded server while the block runs."""
    if given := context.config.attributes.get("database_url"):
        yield given
        return
    settings = Settings()
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    if settings.environment is Environment.PRODUCTION:
        raise util.CommandError(
            "DATABASE_URL is not set, and the embedded PostgreSQL is refused in production"
        )
    from app.embedded import EmbeddedError, LocalServer  # noqa: PLC0415  (needed on this path only)

    try:
        server = LocalServer.open(settings.embedded_folder)
    except EmbeddedError as error:
        raise util.CommandError(str(error)) from error
    with server:
        yield server.url


async def connect(url: str) -> asyncpg.Connection:
    """Open the session; raises `CommandError` with one line that says what to do."""
    try:
        # Nothing is prepared twice, and a pooler could not keep it anyway.
        return await asyncpg.connect(dsn(address(url)), timeout=10, statement_cache_size=0)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise util.CommandError(f"cannot reach the database: {error}") from error


async def refuse_unsuitable_server(connection: AsyncConnection) -> None:
    """Raise `CommandError` for a server that is too old or a standby."""
    version, standby, schema = (
        await connection.execute(
            text(
                "SELECT current_setting('server_version_num')::int / 10000,"
                " pg_is_in_recovery(), current_schema()"
            )
        )
    ).one()
    if version < OLDEST_SERVER:
        raise util.CommandError(f"PostgreSQL {OLDEST_SERVER} or newer is needed; this server is {version}")
    if standby:
        raise util.CommandError("this server is a standby; point DATABASE_URL at the primary")
    if schema is None:
        raise util.CommandError("no schema of this role's search_path exists; create it or set search_path")


async def take_migration_lock(connection: AsyncConnection) -> None:
    """Wait until no other migration runs in this database.

    Asked again and again instead of waited for: a session blocked in pg_advisory_lock keeps a snapshot
    that CREATE INDEX CONCURRENTLY of the other migration would wait for, and both would wait for ever.
    """
    told = False
    while True:
        taken = await connection.scalar(
            text("SELECT pg_try_advisory_lock(cast(:key AS bigint))"), {"key": MIGRATION_LOCK}
        )
        await connection.commit()
        if taken:
            return
        if not told:
            context.config.print_stdout("another migration is running in this database; waiting for it")
            told = True
        await asyncio.sleep(LOCK_POLL)


def ours_only(name: str | None, kind: str, _: Any) -> bool:
    """Keep autogenerate from seeing the host's tables and other alembic histories."""
    return kind != "table" or name in metadata.tables


def comparable(thing: Any, _: str | None, kind: str, reflected: bool, counterpart: Any) -> bool:  # noqa: FBT001
    """Leave out what may differ between databases: a key of newer servers, an adopted table's own."""
    if kind == "foreign_key_constraint" and thing.table.name == "realtime_events":
        return False
    extra = reflected and counterpart is None and kind != "table"
    return not (extra and str(thing.table.comment).startswith(ADOPTED))


def migrate(connection: Connection) -> None:
    """Run what the alembic command asked for."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        transaction_per_migration=True,
        include_name=ours_only,
        include_object=comparable,
        # Comments record which tables were adopted, so they differ from database to database.
        autogenerate_plugins=["alembic.autogenerate.*", "~alembic.autogenerate.comments"],
    )
    with warnings.catch_warnings(), context.begin_transaction():
        # SQLAlchemy reflects a NOT VALID check with an option that its own constructor does not know.
        warnings.filterwarnings("ignore", "Can't validate argument 'dialect_options'", SAWarning)
        context.run_migrations()


async def run(url: str) -> None:
    """Migrate over one connection that holds the migration lock to its end."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect(url), poolclass=pool.NullPool
    )
    try:
        async with engine.connect() as connection:
            await refuse_unsuitable_server(connection)
            await take_migration_lock(connection)
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    raise util.CommandError("--sql is not supported: the steps look at the database to decide what to do")
if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
with database_url() as target:
    asyncio.run(run(target))

"""The pool: one SQLAlchemy engine on asyncpg, lent out for one statement or one transaction."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy import URL, event, make_url
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import PoolProxiedConnection

from app.store.discretion import keep_rows_out_of_logs, values_untold

LOOKUPS = {
    # Every statement here looks up few rows by index. A generic plan never sees how few, so what
    # suits many rows is put out of its reach; tests EXPLAIN each statement on a million rows.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    # A connection lost in mid-transaction must not hold locks until TCP notices.
    "idle_in_transaction_session_timeout": "60s",
}

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
    PoolTimeoutError,
)
"""What a database that is down, restarting, full, or being replaced raises; all of it passes.

A mistake in a statement of ours is not among it, and must not look like it.
"""


_OF_LIBPQ_ONLY = frozenset(
    {"channel_binding", "connect_timeout", "gssencmode", "keepalives", "keepalives_count", "keepalives_idle"}
    | {"keepalives_interval", "prepared_statement_cache_size", "tcp_user_timeout"}
)
"""Parameters that mean something to other drivers; the server would be asked for settings of these names."""


def address(text: str, *, name: str = "DATABASE_URL") -> URL:
    """Read `postgresql://` or `postgresql+asyncpg://`; raises ValueError saying what of `name` is expected.

    TLS is asked for as libpq has it (`sslmode=`) or as SQLAlchemy has it (`ssl=`).
    """
    try:
        url = make_url(text)
    except Exception as error:
        message = f"{name} is not a URL; expected postgresql://user:password@host:5432/dbname"
        raise ValueError(message) from error
    if url.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        message = f"{name} names {url.drivername}; expected postgresql:// or postgresql+asyncpg://"
        raise ValueError(message)
    if unknown := _OF_LIBPQ_ONLY.intersection(url.query):
        message = f"{name} has {', '.join(sorted(unknown))}, which is not understood: leave it out"
        raise ValueError(message)
    # Of what is said several times, as SQLAlchemy has several hosts, the driver would know the last one only.
    query = {name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()}
    if "ssl" in query:
        query = {"sslmode": query.pop("ssl")} | query
    return url.set(drivername="postgresql+asyncpg", query=query)


def dsn(url: URL) -> str:
    """The same for the driver itself, which everybody here asks: SQLAlchemy knows less of an address."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


class Database:
    """The pool of one process."""

    def __init__(self, url: URL, *, size: int, application_name: str = "mindvibe-realtime") -> None:
        keep_rows_out_of_logs()
        self.engine: AsyncEngine = create_async_engine(
            URL.create("postgresql+asyncpg"),
            pool_size=size,
            max_overflow=0,
            hide_parameters=True,
            pool_timeout=30,
            # A statement that meets a connection that died unnoticed fails and is tried again by its
            # caller; a ping before each would double the round trips of the tail.
            pool_pre_ping=False,
            connect_args={
                "dsn": dsn(url),
                "timeout": 5,
                # Also how long the tail takes to notice a connection that is half-open.
                "command_timeout": 15,
                "server_settings": {"application_name": application_name, **LOOKUPS},
            },
        )
        event.listen(self.engine.sync_engine, "checkout", _lend_no_closed_one)

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend asyncpg's own connection, in autocommit; one that broke is not put back."""
        try:
            connection = await self.engine.raw_connection()
        except (AsyncAdapt_asyncpg_dbapi.Error, DBAPIError) as error:
            # Callers know what the driver says of a server that takes no connection. SQLAlchemy has words of
            # its own, and others still where it asks a first connection what the server is like.
            said = error.orig if isinstance(error, DBAPIError) else error
            raise getattr(said, "__cause__", None) or error  # noqa: B904 - its cause, as it was
        try:
            driver = connection.driver_connection
            if driver is None:
                raise ConnectionError("the pool lent a connection without a driver")
            try:
                with values_untold():
                    yield driver
            except asyncpg.PostgresError:
                if driver.is_closed() or driver.is_in_transaction():
                    connection.invalidate()
                raise
            except BaseException:
                connection.invalidate()  # cancelled in mid-statement, its state is unknown
                raise
        finally:
            connection.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for one transaction, committed at the end."""
        try:
            with values_untold():
                async with self.engine.begin() as connection:
                    yield connection
        except DBAPIError as error:
            # SQLAlchemy wraps what the driver raises; whether that passes is the driver's to say.
            cause = getattr(error.orig, "__cause__", None)
            if error.connection_invalidated or isinstance(cause, UNREACHABLE):
                raise ConnectionError(str(cause or error.orig)) from error
            raise

    async def close(self) -> None:
        """Close every pooled connection."""
        await self.engine.dispose()


def _lend_no_closed_one(_: object, __: object, lent: PoolProxiedConnection) -> None:
    """Replace a connection that is known to have ended while nobody used it; with it ended others."""
    driver = lent.driver_connection
    if driver is None or driver.is_closed():
        raise InvalidatePoolError

"""What becomes of a pooled connection whose backend is ended: nobody is lent it who need not be, and nobody twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text

from app.store.database import UNREACHABLE, address
from app.store.database import Database as Pool
from tests.integration.outbox.proxy import Proxy, proxy_to
from tests.support.postgres import Database
from tests.support.service import until

pytestmark = pytest.mark.every_major

SIZE = 3
BACKEND = "SELECT pg_backend_pid()"
END = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = $1 AND application_name = $2"
NAME = "pooled"


async def of_driver(pool: Pool) -> int:
    async with pool.driver() as connection:
        return int(await connection.fetchval(BACKEND))


async def of_transaction(pool: Pool) -> int:
    async with pool.transaction() as connection:
        return int((await connection.execute(text(BACKEND))).scalar_one())


Ask = Callable[[Pool], Awaitable[int]]

lent = pytest.mark.parametrize("ask", [of_driver, of_transaction])


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    """Straight to the server."""
    pool = Pool(address(database.url), size=SIZE, application_name=NAME)
    yield pool
    await pool.close()


@asynccontextmanager
async def proxied(database: Database, host: asyncpg.Connection) -> AsyncIterator[tuple[Proxy, Pool]]:
    """A pool of one connection, with a network in between."""
    directory, port = await host.fetchrow(
        "SELECT current_setting('unix_socket_directories'), current_setting('port')"
    )
    async with proxy_to(f"{directory}/.s.PGSQL.{port}") as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{database.name}"
        pool = Pool(address(url), size=1, application_name=NAME)
        yield proxy, pool
        await pool.close()


async def fill(pool: Pool) -> list[asyncpg.Connection]:
    """Let it have all its connections, none of them lent; what they are."""
    async with pool.driver() as one, pool.driver() as two, pool.driver() as three:
        return [one, two, three]


@lent
async def test_a_connection_known_to_have_ended_is_lent_to_nobody(
    database: Database, host: asyncpg.Connection, pool: Pool, ask: Ask
) -> None:
    """After every backend was ended nobody fails for it: neither the first who asks, nor any other."""
    ended = await fill(pool)
    await host.execute(END, database.name, NAME)
    await until(lambda: all(one.is_closed() for one in ended))

    for _ in range(SIZE + 1):
        assert await ask(pool)


@lent
async def test_a_network_that_is_cut_while_the_first_connection_is_made_is_one_that_passes(
    database: Database, host: asyncpg.Connection, ask: Ask
) -> None:
    """SQLAlchemy asks the server a few things then, and has words of its own for what goes wrong."""
    async with proxied(database, host) as (proxy, pool):
        proxy.cut_at(b"show standard_conforming_strings")
        with pytest.raises(UNREACHABLE):
            await ask(pool)
        proxy.cut_at(None)

        assert await ask(pool)


@lent
async def test_a_connection_that_has_only_said_that_it_ends_fails_one_who_is_lent_it(
    database: Database, host: asyncpg.Connection, ask: Ask
) -> None:
    """The server's last words are here and the end of the connection is not, nor ever will be."""
    async with proxied(database, host) as (proxy, pool):
        before = await ask(pool)
        proxy.keep_ends_back()
        await host.execute(END, database.name, NAME)
        await until(lambda: proxy.ends == 1)
        for _ in range(3):
            await asyncio.sleep(0)  # the last words are at this end of the socket; now they are read

        with pytest.raises(UNREACHABLE):
            await ask(pool)
        after = [await ask(pool) for _ in range(3)]

        assert before not in after
        assert len(set(after)) == 1
        proxy.heal()

"""A real service per module, on a database of the module's own; users are new in every test.

The service runs as the role of ops/grants.sql; the tests are the owner of everything, as which they play the host.
After every test the log is looked through: a traceback or an error fails the test that caused it.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode

import asyncpg
import pytest

from tests.support import stream
from tests.support.client import Client, open_client
from tests.support.postgres import Database, Servers, create_database, drop_database
from tests.support.roles import as_service, create_roles, drop_roles
from tests.support.server import PATIENCE, Server

T = TypeVar("T")
StartServer = Callable[..., Server]
Connect = Callable[..., Awaitable[Client]]
Listen = Callable[..., Awaitable[stream.Stream]]
Eventually = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run on the newest PostgreSQL alone, unless marked: what depends on the version is tested part by part."""
    if metafunc.definition.get_closest_marker("every_major") is None:
        metafunc.definition.add_marker(pytest.mark.one_major)


def aside(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine outside the loops of the tests."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(work)))
    thread.start()
    thread.join()
    return results[0]


@contextmanager
def migrated_house(servers: Servers) -> Iterator[Database]:
    """A migrated database with the roles of ops/grants.sql."""
    database = aside(create_database(servers.shared(max(servers.installations))))
    aside(create_roles(database))
    yield database
    aside(drop_roles(database))
    aside(drop_database(database))


@pytest.fixture(scope="module")
def house(servers: Servers) -> Iterator[Database]:
    """The migrated database of this module."""
    with migrated_house(servers) as database:
        yield database


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Settings of the module's service; a module that needs others overrides this."""
    return {}


@pytest.fixture(scope="module")
def module_server(house: Database, server_settings: dict[str, Any]) -> Iterator[Server]:
    """The service of this module."""
    server = Server(as_service(house), **server_settings)
    aside(server.healthy())
    yield server
    server.end()


@pytest.fixture
def server(module_server: Server) -> Iterator[Server]:
    """The service of this module, whose log must stay clean."""
    since = len(module_server.log)
    yield module_server
    assert module_server.mishaps(since) == ""


@pytest.fixture
def start_server(house: Database) -> Iterator[StartServer]:
    """Start services of the test's own, not waited for; gone after the test, and their logs looked through.

    On the module's database they run as the service's role, too.
    """
    started: list[Server] = []

    def start(database_url: str | None, *arguments: str, **options: Any) -> Server:
        address = as_service(house) if database_url == house.url else database_url
        started.append(Server(address, *arguments, **options))
        return started[-1]

    yield start
    mishaps = [server.mishaps() for server in started]
    for server in started:
        server.end()
    assert "".join(mishaps) == ""


@pytest.fixture
async def host(house: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the host's, to the module's database."""
    connection = await asyncpg.connect(house.url)
    yield connection
    await connection.close(timeout=PATIENCE)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connect as a user, with a query and headers if given; returns when the first message has come."""
    made: list[Client] = []

    async def open_one(
        server: Server, user_id: str, headers: dict[str, str] | None = None, **query: str
    ) -> Client:
        client = await open_client(server.address, headers, user_id=user_id, **query)
        made.append(client)
        await client.until(lambda one: one.messages)
        return client

    yield open_one
    for client in made:
        await client.vanish()


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Ask for a user's stream, with headers and a query if given; returns when the first message has come."""
    made: list[stream.Stream] = []

    async def open_one(
        server: Server,
        user_id: str,
        headers: dict[str, str] | None = None,
        *,
        receive_buffer: int | None = None,
        **query: str,
    ) -> stream.Stream:
        path = f"{stream.PATH}?{urlencode({'user_id': user_id, **query})}"
        one = await stream.request(server.address, path, headers=headers, receive_buffer=receive_buffer)
        made.append(one)
        await one.until(lambda this: this.messages or this.ended)
        return one

    yield open_one
    for one in made:
        await one.vanish()


@pytest.fixture
def eventually() -> Eventually:
    """Wait until something is true that nobody tells."""

    async def wait(met: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await met():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.03)

    return wait

"""An address of the database means the same to the pool, to the listener and to the migrations."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from app.lifecycle import Part
from app.outbox.listener import Listener
from app.preparation import Preparation, StartupError
from app.store.database import Database as Pool
from app.store.database import address, dsn
from tests.integration.outbox.proxy import proxy_to
from tests.integration.outbox.test_listener import socket_of, through
from tests.support.postgres import Database
from tests.support.service import until


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Listener]:
    """A listener at this address."""
    listener = Listener(address(url), lambda: None)
    part = Part("listener", listener.run)
    part.start()
    try:
        yield listener
    finally:
        await part.stop()


async def ask(url: str, what: str) -> object:
    """Ask the database something through the pool."""
    pool = Pool(address(url), size=1)
    try:
        async with pool.driver() as connection:
            return await connection.fetchval(what)
    finally:
        await pool.close()


@pytest.mark.parametrize("tls", ["sslmode=require", "ssl=require"])
async def test_tls_that_is_asked_for_is_insisted_on_by_everybody(database: Database, tls: str) -> None:
    """On a server that has none the pool, the listener and a migration say so, and send no password."""
    async with proxy_to(socket_of(database)) as path:
        url = f"{through(path.port, database)}?{tls}"
        with pytest.raises(ConnectionError, match="SSL"):
            await ask(url, "SELECT 1")
        async with listening(url) as listener:
            await until(lambda: listener.failure is not None)
            assert "SSL" in str(listener.failure)
        with pytest.raises(ConnectionError, match="SSL"):
            await asyncpg.connect(dsn(address(url)))


async def test_all_of_several_hosts_are_tried(database: Database) -> None:
    """Written once or several times; the first of these is none."""
    folder = database.url.partition("host=")[2]
    for hosts in (f"host=/nowhere,{folder}", f"host=/nowhere&host={folder}"):
        assert await ask(database.url.replace(f"host={folder}", hosts), "SELECT 1") == 1


@pytest.mark.parametrize("tls", ["sslmode=verify-full", "ssl=true"])
async def test_tls_that_cannot_be_had_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls: str
) -> None:
    """No waiting brings the certificate of an authority, nor a mode that there is not."""
    monkeypatch.setenv("HOME", str(tmp_path))
    pool = Pool(address(f"postgresql://nobody@127.0.0.1/none?{tls}"), size=1)
    preparation = Preparation(pool, ring_until=None, embedded=False, then=lambda _: None)
    with pytest.raises(StartupError, match=r"root certificate|sslmode"):
        await preparation.attempt()
    await pool.close()


@pytest.mark.parametrize("plain", ["sslmode=disable", "ssl=disable"])
async def test_an_address_may_do_without_tls_and_set_what_the_server_knows(
    database: Database, plain: str
) -> None:
    """Settings of the session pass, but for those that the service itself needs."""
    async with proxy_to(socket_of(database)) as path:
        url = f"{through(path.port, database)}?{plain}&work_mem=5MB&application_name=other&enable_seqscan=on"
        assert await ask(url, "SELECT current_setting('work_mem')") == "5MB"
        assert await ask(url, "SELECT current_setting('enable_seqscan')") == "off"
        assert await ask(url, "SELECT current_setting('application_name')") == "mindvibe-realtime"
        async with listening(url) as listener:
            await until(lambda: listener.echoed_at is not None)


def test_a_parameter_of_another_driver_is_named() -> None:
    """The server would be asked for a setting of that name, again and again."""
    with pytest.raises(ValueError, match="channel_binding, connect_timeout, which"):
        address("postgresql://host/db?sslmode=require&channel_binding=require&connect_timeout=5")

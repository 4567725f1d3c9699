"""The listener hears again whatever happened to its connection, and holds nothing up meanwhile."""

import asyncio

import asyncpg
import pytest

from app.outbox.listener import CHANNELS
from app.outbox.tail import Timing
from tests.integration.outbox.conftest import StartRig
from tests.integration.outbox.proxy import proxy_to
from tests.support.host import log_mood, log_moods
from tests.support.postgres import Database
from tests.support.service import NO_SWEEP, PATIENCE, Rig, until

pytestmark = pytest.mark.every_major

BELLS_ONLY = Timing(sweep=NO_SWEEP, lease=None)
"""Rows can arrive because a bell was heard, or the listener woke the tail; there is no sweep."""
LISTENERS = "application_name = 'mindvibe-realtime listener' AND datname = current_database()"


def through(port: int, database: Database) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/{database.name}"


def socket_of(database: Database) -> str:
    return str(database.cluster.socket_dir / f".s.PGSQL.{database.cluster.port}")


async def test_a_bell_is_heard_without_a_sweep(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """The control of those below: with a listener rows arrive, without one they do not."""
    rig = await start_rig(database.url, timing=BELLS_ONLY)
    deaf = await start_rig(database.url, timing=BELLS_ONLY, listens=False)
    peers = rig.connect("u"), deaf.connect("u")
    await rig.settled()
    await deaf.settled()
    await log_mood(host, "u")
    await until(lambda: peers[0].received)
    assert not peers[1].received
    await deaf.settled()
    assert peers[1].received


async def test_what_is_written_while_nobody_listens_arrives_with_the_next_listener(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Its backend is ended and it cannot come back for a while; when it does, it wakes by itself."""
    async with proxy_to(socket_of(database)) as proxy:
        rig = await start_rig(
            database.url, listen_url=through(proxy.port, database), timing=BELLS_ONLY, echo_interval=0.2
        )
        peer = rig.connect("u")
        await rig.settled()
        proxy.stall()
        await host.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {LISTENERS}")
        await until(lambda: rig.listener.failure is not None)
        await log_moods(host, ["u"], 50)
        assert not peer.received
        proxy.heal()
        await until(lambda: len(peer.received) == 50)
        await log_mood(host, "u")
        await until(lambda: len(peer.received) == 51)
        assert peer.ids == sorted(set(peer.ids))


async def test_a_listener_whose_backend_is_ended_is_back_at_once(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Over and over; every row arrives although any bell may have been rung for nobody."""
    rig = await start_rig(database.url, timing=BELLS_ONLY)
    peer = rig.connect("u")
    await rig.settled()
    for number in range(10):
        await host.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {LISTENERS}")
        await log_mood(host, "u", number)
        await until(lambda at_least=number + 1: len(peer.received) == at_least)
    assert [one.data["mood_score"] for one in peer.received] == list(range(10))


async def test_a_half_open_connection_is_noticed_and_the_sweep_delivers_meanwhile(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Nothing is closed, nothing comes through: the echo stays away, and the listener starts anew."""
    interval, timeout = 0.2, 0.3
    async with proxy_to(socket_of(database)) as proxy:
        rig = await start_rig(
            database.url,
            listen_url=through(proxy.port, database),
            timing=Timing(sweep=0.1, lease=0.3),
            echo_interval=interval,
            echo_timeout=timeout,
        )
        peer = rig.connect("u")
        await rig.settled()
        proxy.stall()
        await until(lambda: rig.listener.failure is not None, within=10 * (interval + timeout))
        await log_moods(host, ["u"], 20)
        await until(lambda: len(peer.received) == 20)
        proxy.heal()
        await until(lambda: rig.listener.failure is None)
        await hears(rig, host)


async def hears(rig: Rig, host: asyncpg.Connection) -> None:
    """Wait until a bell wakes this rig."""
    heard = rig.wakes
    async with asyncio.timeout(PATIENCE):
        while rig.wakes == heard:
            await log_mood(host, "nobody")
            await asyncio.sleep(0.02)


async def test_the_listener_never_sits_in_a_transaction(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Whoever LISTENs in a transaction lets the queue of the whole cluster fill."""
    rig = await start_rig(database.url, echo_interval=0.01)
    watcher = await database.connect()
    seen = set()
    for _ in range(100):
        await log_mood(host, "nobody")
        seen.add(await watcher.fetchval(f"SELECT state FROM pg_stat_activity WHERE {LISTENERS}"))
    assert "idle" in seen
    assert seen <= {"idle", "active"}  # and never "idle in transaction"
    async with rig.pool.driver() as connection:
        assert await connection.fetchval("SELECT pg_notification_queue_usage()") < 0.01
    async with host.transaction():
        await host.execute("SELECT 1")
        state = await watcher.fetchval(
            "SELECT state FROM pg_stat_activity WHERE pid = $1", host.get_server_pid()
        )
    assert state == "idle in transaction"  # the control: this is how it would be seen


async def test_every_channel_wakes(database: Database, host: asyncpg.Connection, start_rig: StartRig) -> None:
    """A bell on any of them, whatever it carries, is a wake and nothing more."""
    rig = await start_rig(database.url, timing=BELLS_ONLY)
    for channel in CHANNELS:
        for payload in ("", "{}", "not json", '{"user_id": "u"}'):
            heard = rig.wakes
            await host.execute("SELECT pg_notify($1, $2)", channel, payload)
            await until(lambda before=heard: rig.wakes > before)
    assert rig.listener.failure is None

"""The database crashes, restarts, goes back in time, moves and is promoted: nothing is lost, little repeated."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from app.core.flight import Limits
from app.core.position import Lost, Position
from app.core.reads import Unavailable
from app.core.token import Holder, decode, encode
from app.embedded import Cluster
from app.outbox.catch_up import Archive
from app.outbox.receipts import Receipts
from app.outbox.tail import Timing
from app.outbox.walk import PageSize
from app.store import inspection, reads
from app.store.database import Database as Pool
from app.store.database import address
from tests.conftest import NewCluster, NewDatabase
from tests.integration.outbox.conftest import StartRig
from tests.integration.outbox.proxy import Proxy, proxy_to
from tests.integration.outbox.test_tail_cut import HOLD, held_tail
from tests.support.host import add_user, create_room, log_mood
from tests.support.postgres import Database, restore_files
from tests.support.service import Knobs, Peer, Rig, until, until_true

pytestmark = pytest.mark.every_major

# What writes WAL by itself would keep a crash from handing transaction ids out again.
QUIET = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_writer_delay": "10s",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
}
OVERLAP = timedelta(seconds=300)
FAST = Timing(sweep=0.2, lease=0.6, retry=0.05)


class Host:
    """A host that keeps writing whatever happens to the database, and knows what it was told."""

    def __init__(self, database: Database, user_id: str) -> None:
        self.database = database
        self.user_id = user_id
        self.kept: list[int] = []
        self.unsure: set[int] = set()
        self._score = 0
        self._connection: asyncpg.Connection | None = None

    async def write(self, count: int = 1) -> None:
        """Log so many moods, each in a transaction of its own; one whose fate is unknown counts for none."""
        while count:
            self._score += 1
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self.database.connect()
                await log_mood(self._connection, self.user_id, self._score)
            except Exception:  # noqa: BLE001 - however the driver puts it
                self.unsure.add(self._score)
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                self.unsure.add(self._score)
                raise
            else:
                self.kept.append(self._score)
                count -= 1

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Keep writing meanwhile."""
        task = asyncio.create_task(self._go_on())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None

    async def _go_on(self) -> None:
        while True:
            await self.write()
            await asyncio.sleep(0.002)

    def check(self, peer: Peer) -> None:
        """Every mood that was kept came once and in order; one of unknown fate may have come."""
        scores = scores_of(peer)
        assert scores == sorted(set(scores)), "a row came twice or out of order"
        assert not set(self.kept).difference(scores), "a row is missing"
        assert not set(scores).difference(self.kept, self.unsure), "a row that never was"


async def with_a_device(
    database: Database, start_rig: StartRig, **knobs: Any
) -> tuple[Rig, asyncpg.Connection]:
    """A service, the host's connection, and a device that "u" has registered, by its token "token"."""
    rig = await start_rig(database.url, timing=FAST, **knobs)
    host = await database.connect()
    await add_user(host, "u")
    await rig.registry.register("u", "token", "ios", None)
    return rig, host


def scores_of(peer: Peer) -> list[int]:
    return [one.data["mood_score"] for one in peer.received]


def scores_and_whether_again(peer: Peer) -> list[tuple[int, bool]]:
    return [(one.data["mood_score"], one.body["redelivered"]) for one in peer.received]


@asynccontextmanager
async def archive_on(database: Database) -> AsyncIterator[Archive]:
    """An archive of another process."""
    pool = Pool(address(database.url), size=2)
    try:
        yield Archive(pool, asyncio.Semaphore(2), PageSize(), OVERLAP, Receipts(pool))
    finally:
        await pool.close()


async def read_all(
    archive: Archive, user_id: str, position: Position | None
) -> tuple[list[int], Lost | None]:
    """The ids that a reader with this position gets, and why it was lost if it was."""
    ids: list[int] = []
    reason = None
    partial = True
    while partial:
        reader = archive.reader(user_id, takes_sync=False)
        begun = await reader.start(position, with_undelivered=False)
        reason = reason or begun.lost
        page = begun.page
        ids += [message.id for message in page.messages]
        while page.more:
            page = await reader.next_page()
            ids += [message.id for message in page.messages]
        position, partial = begun.first.end(), begun.partial
    return ids, reason


async def position_now(archive: Archive) -> Position:
    """Where the database is now, as a client keeps it: by way of a token."""
    begun = await archive.reader("nobody", takes_sync=False).start(None, with_undelivered=False)
    return decode(encode(begun.first.end(), Holder("u"))).position


async def event_ids(connection: asyncpg.Connection, where: str = "true") -> list[int]:
    rows = await connection.fetch(f"SELECT id FROM realtime_events WHERE {where} ORDER BY id")
    return [row[0] for row in rows]


async def burn_xids(connection: asyncpg.Connection, count: int) -> None:
    """Take transaction ids that nothing is written under."""
    await connection.execute(
        f"""DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"""
    )


async def test_a_crash_that_hands_out_a_transaction_id_again_hides_no_row(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """A transaction rolls back, a snapshot is taken, the server is killed, the next has the same id."""
    cluster = private_cluster(options=QUIET)
    database = await new_database(cluster)
    rig = await start_rig(database.url, listens=False)
    host = await database.connect()
    peer = rig.connect("u")
    await log_mood(host, "u", 1)
    await rig.settled()
    await rig.recorded()
    await host.execute("CHECKPOINT")
    transaction = host.transaction()
    await transaction.start()
    rolled_back = await host.fetchval("SELECT pg_current_xact_id()::text::bigint")
    await transaction.rollback()
    await rig.caught_up()
    async with archive_on(database) as archive:
        token = await position_now(archive)
    assert token.has(rolled_back, 1)

    await asyncio.to_thread(cluster.kill)
    await asyncio.to_thread(cluster.start)
    again = await database.connect()
    await log_mood(again, "u", 2)
    xid = await again.fetchval("SELECT max(xid::text::bigint) FROM realtime_events")
    assert xid == rolled_back, "the crash did not hand the transaction id out again"
    await rig.settled()
    assert scores_of(peer) == [1, 2]
    async with archive_on(database) as archive:
        ids, reason = await read_all(archive, "u", token)
    assert ids[-1] == peer.ids[-1]
    assert reason is None


@asynccontextmanager
async def crash_that_takes_a_row(cluster: Cluster, database: Database, rig: Rig) -> AsyncIterator[int]:
    """Commit a row that "u" is sent, and lose it; inside, where its id is told, the server is down."""
    host = await database.connect()
    await host.execute("CHECKPOINT")
    await host.execute("SET synchronous_commit = off")
    await log_mood(host, "u", 1)
    await rig.caught_up()
    [lost] = await event_ids(host)
    await asyncio.to_thread(cluster.kill)
    yield lost
    await asyncio.to_thread(cluster.start)


@pytest.mark.parametrize("says", ["pong", "ack", "nack", "nothing"])
@pytest.mark.parametrize("soon", [True, False])
async def test_a_row_with_the_id_of_one_that_a_crash_took_is_another_row(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig, says: str, soon: bool
) -> None:
    """What a client says of the one that is gone, before the other is there or after, counts for that one alone."""
    cluster = private_cluster(options=QUIET)
    database = await new_database(cluster)
    rig = await start_rig(database.url, timing=FAST)
    client = rig.connect("u", mute=True, acks=says != "pong")
    await until(lambda: client.is_settled)

    def speak() -> None:
        match says:
            case "pong":
                client.unmute()
            case "ack":
                client.acknowledge(1)
            case "nack":
                client.refuse(1)
        client.leave()

    async with crash_that_takes_a_row(cluster, database, rig) as lost:
        assert client.ids == [lost]
        if soon:
            speak()
    if soon:
        await rig.recorded()
    host = await database.connect()
    await log_mood(host, "u", 2)
    assert await event_ids(host) == [lost], "the crash did not hand the id out again"
    if not soon:
        speak()
        await rig.recorded()

    returned = rig.connect("u", acks=True)
    await rig.settled(returned)
    assert scores_of(returned) == [2]
    assert not (soon and returned.received[0].body["redelivered"])
    await rig.recorded()
    assert await event_ids(host, "delivered") == [lost]


@pytest.mark.parametrize("takes_it", [True, False])
@pytest.mark.parametrize("down_for", [0.0, 2.0])
async def test_a_refusal_that_a_crash_took_is_told_again_and_counts_once(
    private_cluster: NewCluster,
    new_database: NewDatabase,
    start_rig: StartRig,
    takes_it: bool,
    down_for: float,
) -> None:
    """The row is there and its reader has passed over it, so nothing else would ever send it again.

    Also where the database was away for longer than the overlap.
    """
    cluster = private_cluster(options=QUIET | {"synchronous_commit": "off" if takes_it else "on"})
    database = await new_database(cluster)
    rig, host = await with_a_device(database, start_rig, overlap=1.0)
    client = rig.connect("u", device=await rig.registry.connect("u", "token"), mute=True, acks=True)
    await until(lambda: client.is_settled)
    await log_mood(host, "u", 1)
    await rig.caught_up()
    await host.execute("CHECKPOINT")
    client.refuse(1)
    await rig.recorded()
    host = await database.connect()
    assert await refusals(host) == [1]

    await asyncio.to_thread(cluster.kill)
    back_at = time.monotonic() + down_for
    await until(lambda: time.monotonic() >= back_at)
    await asyncio.to_thread(cluster.start)
    await rig.caught_up()
    await rig.recorded()

    assert await refusals(await database.connect()) == [1]


async def test_what_was_refused_counts_as_received_by_no_position_although_the_database_has_lost_that(
    database: Database, start_rig: StartRig
) -> None:
    """Whoever returns before it is reported again has passed over it, and gets it nevertheless."""
    rig, host = await with_a_device(database, start_rig)
    client = rig.connect("u", position="", mute=True, acks=True)
    await until(lambda: client.is_settled)
    await log_mood(host, "u", 1)
    await rig.caught_up()
    client.refuse(1)
    await rig.recorded()
    await host.execute("DELETE FROM realtime_redeliveries")
    await host.execute("DELETE FROM realtime_reporters")
    client.leave()

    assert client.position is not None
    returned = rig.connect("u", position=encode(client.position, Holder("u")), mute=True, acks=True)
    await rig.settled(returned)
    await rig.recorded()
    assert await event_ids(host, "delivered") == []

    rig.receipts.database_restarted()
    await rig.recorded()
    assert await refusals(host) == [1]


async def refusals(host: asyncpg.Connection) -> list[int]:
    """How often each row was refused."""
    return [row[0] for row in await host.fetch("SELECT nacks FROM realtime_redeliveries")]


async def kill_a_backend(cluster: Cluster, database: Database) -> None:
    """SIGKILL to one backend: the server ends all of them and recovers by itself."""
    victim = await database.connect()
    pid = await victim.fetchval("SELECT pg_backend_pid()")
    os.kill(pid, signal.SIGKILL)
    await until(victim.is_closed)


async def kill_all(cluster: Cluster, database: Database) -> None:
    await asyncio.to_thread(cluster.kill)
    await asyncio.to_thread(cluster.start)


async def stop_at_once(cluster: Cluster, database: Database) -> None:
    await asyncio.to_thread(cluster.stop, "immediate")
    await asyncio.to_thread(cluster.start)


async def restart(cluster: Cluster, database: Database) -> None:
    await asyncio.to_thread(cluster.stop)
    await asyncio.to_thread(cluster.start)


async def test_those_who_stay_through_restarts_miss_nothing_and_get_nothing_twice(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """A backend killed, all killed, an immediate and a clean stop, while the host writes on."""
    cluster = private_cluster()
    database = await new_database(cluster)
    rig = await start_rig(database.url, timing=FAST)
    host = Host(database, "u")
    peer = rig.connect("u")
    lives = set()
    for end in (kill_a_backend, kill_all, stop_at_once, restart):
        async with host.writing():
            written = len(host.kept)
            await until(lambda at_least=written + 20: len(host.kept) > at_least)
            await rig.settled()
            lives.add(rig.outlet.done.incarnation)  # type: ignore[union-attr]
            await end(cluster, database)
            written = len(host.kept)
            await until(lambda at_least=written + 20: len(host.kept) > at_least)
        await rig.settled()
        host.check(peer)
    lives.add(rig.outlet.done.incarnation)  # type: ignore[union-attr]
    assert len(lives) == 5, "a restart went unnoticed"
    await until(lambda: rig.listener.failure is None and rig.tail.failure is None)


async def test_what_a_restart_repeats_after_younger_rows_says_so(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """Rows that the tail passed over, since their user was not here yet, are handed to who came since."""
    cluster = private_cluster()
    database = await new_database(cluster)
    rig = await start_rig(database.url, timing=FAST)
    host = await database.connect()
    for score in (1, 2):
        await log_mood(host, "u", score)
    await rig.caught_up()
    peer = rig.connect("u", acks=True, mute=True)
    await log_mood(host, "u", 3)
    await rig.settled()
    await kill_all(cluster, database)
    host = await database.connect()
    await log_mood(host, "u", 4)
    await rig.settled()
    assert scores_and_whether_again(peer) == [
        *[(1, False), (2, False), (3, False)],
        *[(1, True), (2, True), (4, False)],
    ]


async def test_what_a_restart_repeats_says_so_also_where_it_is_read_by_the_connection_itself(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """The tail hands over more than finds room, and what is dropped comes from the table."""
    cluster = private_cluster()
    database = await new_database(cluster)
    rig = await start_rig(database.url, timing=FAST, limits=Limits(window=2, queue=4), page=PageSize(rows=50))
    host = await database.connect()
    for score in range(1, 21):
        await log_mood(host, "u", score)
    await rig.caught_up()
    peer = rig.connect("u", acks=True)
    await log_mood(host, "u", 21)
    await rig.settled()
    await kill_all(cluster, database)
    host = await database.connect()
    await log_mood(host, "u", 22)
    await rig.settled()
    first, again = peer.received[:21], peer.received[21:]
    assert [one.data["mood_score"] for one in first] == list(range(1, 22))
    assert {score for score, marked in scores_and_whether_again(peer)[21:] if not marked} == {22}
    assert {one.data["mood_score"] for one in again} >= {*range(1, 21), 22}


@asynccontextmanager
async def reading_one_by_one(database: Database) -> AsyncIterator[tuple[Rig, Proxy]]:
    """A service whose tail reads a row at a time, through a proxy of its own."""
    cluster = database.cluster
    async with proxy_to(str(cluster.socket_dir / f".s.PGSQL.{cluster.port}")) as proxy:
        pool = Pool(address(f"postgresql://postgres@127.0.0.1:{proxy.port}/{database.name}"), size=1)
        rig = Rig(database.url, Knobs(timing=FAST, page=PageSize(rows=1)), tail_pool=pool)
        await rig.start()
        try:
            yield rig, proxy
        finally:
            await rig.stop()
            await pool.close()


async def write_two(host: asyncpg.Connection, user: str) -> None:
    """A mood, and an event of a room, of which the tail has to ask who is in it."""
    room = await create_room(host, user)
    await log_mood(host, user, 1)
    await host.execute(
        "INSERT INTO realtime_events (event_type, user_id, payload, room_id)"
        " VALUES ('chat_message', $1, '{\"mood_score\": 2}', $2)",
        user,
        room,
    )


async def hold_in_the_overlap(proxy: Proxy, database: Database) -> asyncpg.Connection:
    """Kill all, and stop the tail at the second of the rows that it reads again; returns who holds it."""
    proxy.stall()
    await kill_all(database.cluster, database)
    holder = await database.connect()
    await holder.execute(HOLD)
    proxy.heal()
    await held_tail(await database.connect())
    return holder


async def test_what_is_repeated_says_so_when_another_restart_comes_in_between(
    private_cluster: NewCluster, new_database: NewDatabase
) -> None:
    """The tail has handed over the first of the old rows and waits for the second when all is killed again."""
    cluster = private_cluster()
    database = await new_database(cluster)
    host = await database.connect()
    await write_two(host, "u")
    await log_mood(host, "u", 3)
    async with reading_one_by_one(database) as (rig, proxy):
        peer = rig.connect("u", acks=True, mute=True)
        await log_mood(host, "u", 4)
        await rig.settled()
        await hold_in_the_overlap(proxy, database)
        await kill_all(cluster, database)
        await rig.settled()

    assert scores_and_whether_again(peer) == [
        *[(1, False), (2, False), (3, False), (4, False)],
        *[(1, True), (2, True), (3, True)],
    ]


ALL_DELIVERED = "SELECT bool_and(delivered) FROM realtime_events"


async def test_what_is_repeated_says_so_to_who_came_while_the_tail_was_behind(
    private_cluster: NewCluster, new_database: NewDatabase
) -> None:
    """It reads again and has not come to what another connection got meanwhile, when all is killed again."""
    cluster = private_cluster()
    database = await new_database(cluster)
    host = await database.connect()
    await write_two(host, "u")
    async with reading_one_by_one(database) as (rig, proxy):
        rig.connect("u", acks=True)
        await until_true(host, ALL_DELIVERED)
        await host.execute("CHECKPOINT")  # what marked them is not to be lost
        await hold_in_the_overlap(proxy, database)
        host = await database.connect()
        await log_mood(host, "u", 3)
        rig.connect("u", acks=True)
        await until_true(host, ALL_DELIVERED)
        await log_mood(host, "u", 4)
        newcomer = rig.connect("u", acks=True)
        await until(lambda: len(newcomer.received) == 1)
        await kill_all(cluster, database)
        await until(lambda: len(newcomer.received) == 4)

    assert scores_and_whether_again(newcomer) == [(4, False), (2, True), (3, True), (4, True)]


async def test_what_a_restart_repeats_takes_nothing_from_what_a_device_has_stored(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """The repeated rows are the last that come, and older than what is stored; nothing is pending for all that."""
    cluster = private_cluster()
    database = await new_database(cluster)
    rig, host = await with_a_device(database, start_rig)
    for score in (1, 2):
        await log_mood(host, "u", score)
    await rig.caught_up()
    peer = await rig.connect_device("u", "token")
    await log_mood(host, "u", 3)
    await rig.settled()
    await rig.recorded()
    await restart(cluster, database)
    host = await database.connect()
    await until(lambda: len(peer.received) == 5)
    await rig.settled()
    await rig.recorded()

    assert scores_of(peer) == [1, 2, 3, 1, 2]
    await until_true(host, "SELECT bool_and(state = 'received') FROM realtime_delivery")


async def test_what_a_device_has_is_stored_anew_after_a_crash_although_nothing_comes_for_it(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """The crash may have taken what was stored last; the device stays, and has all that there is."""
    cluster = private_cluster()
    database = await new_database(cluster)
    rig = await start_rig(database.url, timing=FAST, limits=Limits(heartbeat_interval=0.2))
    host = await database.connect()
    await add_user(host, "u")
    await rig.registry.register("u", "token", "ios", None)
    peer = await rig.connect_device("u", "token")
    for score in (1, 2, 3):
        await log_mood(host, "u", score)
    await rig.settled()
    await rig.recorded()
    before = await host.fetchval("SELECT position_incarnation FROM users_devices")
    await kill_all(cluster, database)
    await rig.caught_up()
    host = await database.connect()
    await until_true(host, f"SELECT position_incarnation <> '{before}' FROM users_devices")
    assert await host.fetchval(
        "SELECT bool_and(pg_visible_in_snapshot(e.xid, d.position_seen)) FROM realtime_events e, users_devices d"
    )
    assert scores_of(peer) == [1, 2, 3]


async def test_nothing_is_stored_of_a_device_while_the_tail_repeats(
    private_cluster: NewCluster, new_database: NewDatabase
) -> None:
    """It has handed over the first of the old rows, and waits for the second: the device has had both."""
    database = await new_database(private_cluster())
    host = await database.connect()
    await add_user(host, "u")
    await write_two(host, "u")
    async with reading_one_by_one(database) as (rig, proxy):
        await rig.registry.register("u", "token", "ios", None)
        peer = await rig.connect_device("u", "token")
        await log_mood(host, "u", 3)
        await rig.settled()
        await rig.recorded()
        before = await host.fetchval("SELECT position_incarnation FROM users_devices")
        holder = await hold_in_the_overlap(proxy, database)
        await until(lambda: scores_of(peer) == [1, 2, 3, 1] and peer.is_settled)
        await rig.recorded()
        during = await holder.fetchval("SELECT position_incarnation FROM users_devices")
        await holder.close()

    assert during == before


async def test_what_a_position_of_before_a_restart_has_says_so_when_it_is_read_again(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """A read over several pages; what the reader had not got is new to it."""
    cluster = private_cluster()
    database = await new_database(cluster)
    rig = await start_rig(database.url, timing=FAST, page=PageSize(rows=2))
    host = await database.connect()
    peer = rig.connect("u", position="")
    for score in (1, 2, 3):
        await log_mood(host, "u", score)
    await rig.settled()
    position = peer.received[-2].body["position"]
    peer.leave()
    await rig.recorded()
    await kill_all(cluster, database)
    host = await database.connect()
    await log_mood(host, "u", 4)
    await rig.caught_up()
    returned = rig.connect("u", position=position, acks=True, mute=True)
    await rig.settled(returned)
    assert scores_and_whether_again(returned) == [(1, True), (2, True), (3, False), (4, False)]


async def test_a_device_that_returns_after_a_restart_gets_what_it_missed_and_no_more_than_the_overlap(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """Rows older than the overlap are not repeated, younger ones may be, and none is missing."""
    cluster = private_cluster()
    database = await new_database(cluster)
    rig, host = await with_a_device(database, start_rig)
    keeper = rig.connect("u")
    for score in range(1, 4):
        await log_mood(host, "u", score)
    peer = await rig.connect_device("u", "token")
    await rig.settled()
    await rig.recorded()  # a receipt does not count for a row whose time is another
    await host.execute(
        "UPDATE realtime_events SET created_at = created_at - interval '1 hour' WHERE id <= $1", 2
    )
    peer.leave()
    await rig.recorded()
    await log_mood(host, "u", 4)
    await rig.settled(keeper)
    await rig.recorded()
    await restart(cluster, database)
    host = await database.connect()
    await log_mood(host, "u", 5)
    await rig.settled(keeper)
    await rig.recorded()
    returned = await rig.connect_device("u", "token")
    await rig.settled(returned)
    assert scores_of(peer) == [1, 2, 3]
    assert scores_of(returned) == [3, 4, 5]
    assert scores_of(keeper) == [1, 2, 3, 4, 5]


async def test_a_cold_copy_brought_back_hides_no_row(
    private_cluster: NewCluster, new_database: NewDatabase, cold_copy: NewCluster, start_rig: StartRig
) -> None:
    """The files of an hour ago return: transaction ids go back, and positions of the lost hour are about."""
    cluster = private_cluster()
    database = await new_database(cluster)
    rig = await start_rig(database.url, timing=FAST)
    host = Host(database, "u")
    peer = rig.connect("u")
    async with host.writing():
        await until(lambda: len(host.kept) >= 5)
    await database.close()
    await rig.settled()
    await rig.recorded()
    await asyncio.to_thread(cluster.stop)
    copy = await asyncio.to_thread(cold_copy, cluster)
    await asyncio.to_thread(cluster.start)
    await host.write(30)
    await rig.settled()
    async with archive_on(database) as archive:
        token = await position_now(archive)
    await database.close()
    await asyncio.to_thread(cluster.stop)
    await asyncio.to_thread(restore_files, copy, cluster)
    await asyncio.to_thread(cluster.start)
    await host.write(3)
    async with archive_on(database) as archive:
        connection = await database.connect()
        newest = await event_ids(connection, f"(payload ->> 'mood_score')::int > {host.kept[-4]}")
        xids = await connection.fetchval("SELECT max(xid::text::bigint) FROM realtime_events")
        assert token.has(xids, 0), "transaction ids did not go back"
        ids, reason = await read_all(archive, "u", token)
    assert set(newest) <= set(ids)
    assert reason is None
    await rig.settled()
    host.check(peer)


async def test_a_dump_restored_elsewhere_is_delivered_from_there(
    private_cluster: NewCluster, database: Database, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """Rows with ids of the future count as seen; devices of the ancestor get what they missed."""
    host = await database.connect()
    rig = await start_rig(database.url)
    for user in ("u", "away"):
        await add_user(host, user)
    await rig.registry.register("u", "token", "ios", None)
    device = await rig.connect_device("u", "token")
    keeper = rig.connect("u")
    await rig.settled()
    await log_mood(host, "u", 1)
    await rig.settled()
    device.leave()
    await burn_xids(host, 5000)
    await log_mood(host, "u", 2)
    await log_mood(host, "away", 3)
    await rig.settled(keeper)
    await rig.recorded()
    ids = await event_ids(host)
    position = keeper.position
    assert position is not None

    elsewhere = await asyncio.to_thread(private_cluster)
    restored = await new_database(elsewhere, migrated=False)
    dump = elsewhere.home / "dump"
    await asyncio.to_thread(database.cluster.tool, "pg_dump", "-Fc", "-f", dump, database.name)
    await asyncio.to_thread(elsewhere.tool, "pg_restore", "-d", restored.name, dump)
    there = await restored.connect()
    foreign = "xid >= pg_snapshot_xmax(pg_current_snapshot())"
    beyond = await event_ids(there, foreign)
    assert set(beyond) >= set(ids[1:])  # the first may be of an id that the new cluster has had too
    moved = await start_rig(restored.url)
    assert await event_ids(there, foreign) == []
    assert await event_ids(there, "xid = '3'") == beyond

    away = moved.connect("away")
    returned = await moved.connect_device("u", "token")
    await moved.settled()
    assert scores_of(away) == [3]
    assert set(scores_of(returned)) == {1, 2}  # the first within the overlap
    assert returned.ids == sorted(set(returned.ids))
    await log_mood(there, "u", 4)
    await moved.settled()
    await moved.recorded()
    assert scores_of(returned)[-1] == 4

    # The same without the ancestor on record: told so, and only what nobody got.
    async with archive_on(restored) as archive:
        assert await read_all(archive, "u", position) == ([ids[0], ids[1], returned.ids[-1]], None)
        await there.execute(
            "DELETE FROM realtime_ancestors WHERE system_identifier <> (pg_control_system()).system_identifier"
        )
        await there.execute("UPDATE realtime_events SET delivered = false WHERE id = $1", ids[1])
        assert await read_all(archive, "u", position) == ([ids[1]], Lost.OTHER_DATABASE)


async def test_a_standby_is_refused_until_it_is_promoted_and_its_slow_clock_hides_no_row(
    private_cluster: NewCluster, standby_of: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """Snapshots of a standby lie; after the failover transaction ids go back, and rows bear earlier times.

    No clock is set back here: rows written after the promotion get times four minutes earlier instead.
    """
    primary = await asyncio.to_thread(lambda: private_cluster(tcp=True))
    database = await new_database(primary)
    standby = await asyncio.to_thread(lambda: standby_of(primary, tcp=True))
    async with proxy_to(primary.port) as proxy, connections_to(standby, database.name) as there:
        rig = await start_rig(
            f"postgresql://postgres@127.0.0.1:{proxy.port}/{database.name}", timing=FAST, echo_interval=0.2
        )
        host = await database.connect()
        peer = rig.connect("u")
        await log_mood(host, "u", 1)
        await rig.settled()
        await rig.recorded()
        watcher = await there.connect()
        await until_true(watcher, "SELECT count(*) = 1 FROM realtime_events WHERE delivered")
        # From here on the standby gets nothing any more.
        await watcher.execute("ALTER SYSTEM SET primary_conninfo = ''")
        await watcher.execute("SELECT pg_reload_conf()")
        await until_true(watcher, "SELECT count(*) = 0 FROM pg_stat_wal_receiver")
        await burn_xids(host, 100)
        await rig.caught_up()
        async with archive_on(database) as archive:
            token = await position_now(archive)
        await host.close()
        await asyncio.to_thread(primary.kill)
        proxy.lead_to(standby.port)

        await until(
            lambda: "primary" in (rig.tail.failure or "") and "standby" in (rig.listener.failure or "")
        )
        async with archive_on(there) as archive:
            with pytest.raises(Unavailable, match="primary"):
                await archive.reader("u", takes_sync=False).start(token, with_undelivered=False)
        with pytest.raises(reads.Unfit):
            await reads.horizon(watcher)
        with pytest.raises(inspection.Unusable, match="standby"):
            await inspection.inspect(watcher)

        # The row comes before anybody looks at the new primary.
        proxy.stall()
        await watcher.execute("SELECT pg_promote()")
        async with watcher.transaction():
            await log_mood(watcher, "u", 2)
            await watcher.execute(
                "UPDATE realtime_events SET created_at = created_at - interval '4 minutes'"
                " WHERE payload ->> 'mood_score' = '2'"
            )
        proxy.heal()
        assert token.has(await watcher.fetchval("SELECT max(xid::text::bigint) FROM realtime_events"), 0)
        await rig.settled()
        assert scores_of(peer) == [1, 2]
        async with archive_on(there) as archive:
            ids, reason = await read_all(archive, "u", token)
        assert ids[-1] == peer.ids[-1]
        assert reason is None
        await until(lambda: rig.listener.failure is None and rig.tail.failure is None)


@asynccontextmanager
async def connections_to(cluster: Cluster, name: str) -> AsyncIterator[Database]:
    """A database of another server that is there already."""
    database = Database(cluster, name)
    try:
        yield database
    finally:
        await database.close()


async def test_a_transaction_of_its_own_makes_a_reader_unfit(host: asyncpg.Connection) -> None:
    """A snapshot with an own transaction id in it lists itself as unseen for good."""
    async with host.transaction():
        await host.execute("SELECT pg_current_xact_id()")
        with pytest.raises(reads.Unfit):
            await reads.horizon(host)
    await reads.horizon(host)


async def test_a_server_that_takes_no_connection_is_known_by_the_drivers_error(database: Database) -> None:
    """Callers tell by it whether to wait or to give up; the pool must not put its own in the way."""
    pool = Pool(address(database.url).set(database="missing"), size=1)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        async with pool.driver():
            pass
    await pool.close()

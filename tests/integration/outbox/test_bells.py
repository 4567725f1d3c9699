"""Bells ring while a process sleeps and wants them, and neither under load nor for the dead."""

import asyncio

import asyncpg
import pytest

from app.outbox.listener import CHANNELS
from app.outbox.tail import Timing
from app.store import bells
from tests.conftest import NewCluster, NewDatabase
from tests.integration.outbox.conftest import StartRig
from tests.support.host import log_mood
from tests.support.postgres import Database
from tests.support.service import PATIENCE, until

pytestmark = pytest.mark.every_major

SHORT = Timing(sweep=0.1, lease=0.3)
SOON_BUSY = {"busy_above": 1e-3, "busy_below": 5e-4}
INSERTS = 20_000
RING_UNTIL = "SELECT last_value FROM realtime_ring_until"
SECONDS_LEFT = "SELECT last_value / 1000.0 - extract(epoch FROM clock_timestamp()) FROM realtime_ring_until"
IS_WANTED = (
    "SELECT last_value > extract(epoch FROM clock_timestamp()) * 1000 AND last_value < 9223372036854775807"
    " FROM realtime_ring_until"
)


class Stranger:
    """A session of somebody else's that LISTENs to everything."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.heard: list[str] = []

    async def listen(self) -> None:
        for channel in (*CHANNELS, "marker"):
            await self.connection.add_listener(channel, self._on_bell)

    async def rings(self, host: asyncpg.Connection) -> int:
        """How many bells a mood rings: whatever is heard between two markers."""
        await self._until_marked(host)  # bells of before can still be on their way
        await log_mood(host, "u")
        return await self._until_marked(host)

    async def _until_marked(self, host: asyncpg.Connection) -> int:
        """How many bells were heard since the last marker, up to one that is sent now."""
        await host.execute("SELECT pg_notify('marker', '')")
        await until(lambda: "marker" in self.heard)
        count = self.heard.index("marker")
        self.heard.clear()
        return count

    def _on_bell(self, _: object, __: int, channel: str, ___: object) -> None:
        self.heard.append(channel)


@pytest.fixture
async def stranger(database: Database) -> Stranger:
    stranger = Stranger(await database.connect())
    await stranger.listen()
    return stranger


async def until_wanted(host: asyncpg.Connection, wanted: bool) -> None:
    """Wait until a lease stands, or none."""
    async with asyncio.timeout(PATIENCE):
        while await host.fetchval(IS_WANTED) != wanted:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def test_bells_ring_for_a_sleeping_process_and_not_for_a_dead_one(
    database: Database, host: asyncpg.Connection, stranger: Stranger, start_rig: StartRig
) -> None:
    """Before any process: always. While one sleeps: yes. When it is dead for longer than its lease: no."""
    assert await stranger.rings(host) == 1
    rig = await start_rig(database.url, timing=SHORT)
    await until_wanted(host, True)
    assert await stranger.rings(host) == 1
    rig.die()
    await until_wanted(host, False)
    assert await stranger.rings(host) == 0
    await start_rig(database.url, timing=SHORT)
    await until_wanted(host, True)
    assert await stranger.rings(host) == 1


async def test_a_busy_process_ends_its_lease_and_reads_all_the_same(
    database: Database, host: asyncpg.Connection, stranger: Stranger, start_rig: StartRig
) -> None:
    """Under load bells fall silent although the lease was for an hour, and ring again when it is over."""
    rig = await start_rig(database.url, timing=Timing(sweep=0.1, lease=3600), **SOON_BUSY)
    peer = rig.connect("u")
    await until_wanted(host, True)
    written = 0
    async with asyncio.timeout(PATIENCE):
        while not rig.load.busy or await host.fetchval(IS_WANTED):
            await log_mood(host, "u")
            written += 1
    ended = await host.fetchval(RING_UNTIL)
    for _ in range(100):
        await log_mood(host, "u")
    assert rig.load.busy
    assert await host.fetchval(RING_UNTIL) == ended
    assert await stranger.rings(host) == 0
    await until(lambda: len(peer.received) == written + 101)
    await until_wanted(host, True)
    assert not rig.load.busy
    assert await stranger.rings(host) == 1


@pytest.mark.parametrize("others", [0, 1])
async def test_bells_fall_silent_at_once_where_there_is_no_other_process(
    database: Database, host: asyncpg.Connection, start_rig: StartRig, others: int
) -> None:
    """Another is given until its sweep; one that has said nothing for a minute is none."""
    silent_for = [60, 0, *[0] * others]
    await host.execute(
        "INSERT INTO realtime_processes (id, host, pid, seen_at)"
        " SELECT gen_random_uuid(), 'h', 1, now() - make_interval(secs => silent)"
        " FROM unnest($1::int[]) AS silent",
        silent_for,
    )
    await start_rig(database.url, timing=Timing(sweep=3600, lease=7200), **SOON_BUSY)
    await until_wanted(host, True)
    async with asyncio.timeout(PATIENCE):
        while (left := await host.fetchval(SECONDS_LEFT)) > 7000:
            await log_mood(host, "u")
    assert (left > 3000) == bool(others)


async def test_who_sleeps_finds_what_was_not_rung_for_and_is_rung_for_again(
    database: Database, host: asyncpg.Connection, stranger: Stranger, start_rig: StartRig
) -> None:
    """Of three, one becomes busy and is killed; whoever ended the lease of all, each sweep asks anew."""
    timing = Timing(sweep=2, lease=3600)
    asleep = [await start_rig(database.url, timing=timing, busy_above=1e9) for _ in range(2)]
    peers = [rig.connect("u") for rig in asleep]
    busy = await start_rig(database.url, timing=timing, **SOON_BUSY)
    written = 0
    async with asyncio.timeout(PATIENCE):
        while not busy.load.busy:
            await log_mood(host, "u")
            written += 1
    busy.die()
    async with asyncio.timeout(PATIENCE):
        over = False
        while not over:  # a sweep, or the last words of the dead, can come between the end and the mood
            await bells.end_lease(host, within=0, believed=15)
            ended = await host.fetchval(RING_UNTIL)
            rung = await stranger.rings(host)
            written += 1
            over = await host.fetchval(RING_UNTIL) == ended and not await host.fetchval(IS_WANTED)

    assert rung == 0
    await until(lambda: all(len(peer.received) == written for peer in peers))
    await until_wanted(host, True)
    assert await stranger.rings(host) == 1


@pytest.mark.parametrize(("moment", "rung"), [(bells.ALWAYS, 1), (bells.NEVER, 0)])
async def test_bells_that_are_not_leased_stay_as_they_are_set(
    moment: int,
    rung: int,
    database: Database,
    host: asyncpg.Connection,
    stranger: Stranger,
    start_rig: StartRig,
) -> None:
    """`always` and `off`: a process renews nothing, and the sweep delivers whatever is not rung for."""
    await bells.ring_until(host, moment)
    rig = await start_rig(database.url, timing=Timing(sweep=0.1, lease=None))
    peer = rig.connect("u")
    for _ in range(3):
        assert await stranger.rings(host) == rung
    await until(lambda: len(peer.received) == 3)
    assert await host.fetchval(RING_UNTIL) == moment


async def test_a_crash_does_not_make_bells_ring_that_are_off(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """The crash empties what is unlogged, which means "always"; the tail sets it again."""
    cluster = await asyncio.to_thread(private_cluster)
    database = await new_database(cluster)
    host = await database.connect()
    await bells.ring_until(host, bells.NEVER)
    rig = await start_rig(
        database.url, timing=Timing(sweep=0.1, lease=None, retry=0.05, ring_until=bells.NEVER)
    )
    await rig.caught_up()
    await asyncio.to_thread(cluster.kill)
    await asyncio.to_thread(cluster.start)
    await rig.caught_up()
    host = await database.connect()
    stranger = Stranger(await database.connect())
    await stranger.listen()
    assert await stranger.rings(host) == 0


@pytest.mark.parametrize("end", ["sleeps", "dies"])
async def test_a_stranger_that_listens_in_a_transaction_harms_nobody(
    end: str, major: int, private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """The smallest queue there is, 20,000 inserts: none fails, all arrive, and bells ring again after it."""
    if major < 17:
        pytest.skip("the queue's size is a setting since PostgreSQL 17")
    cluster = await asyncio.to_thread(
        lambda: private_cluster(options={"max_notify_queue_pages": "64", "fsync": "off"})
    )
    database = await new_database(cluster)
    rig = await start_rig(database.url, timing=Timing(sweep=0.1, lease=60), busy_above=1e9)
    host = await database.connect()
    peer = rig.connect("u")
    await rig.settled()
    await until_wanted(host, True)
    stranger = await database.connect()
    await stranger.execute("LISTEN anything")
    await stranger.execute("BEGIN")
    await stranger.execute("SELECT 1")
    if end == "dies":
        rig.die()
    # The control is in the schema's tests: there a plain NOTIFY fails when the queue is full.
    await host.execute(
        f"DO $$ BEGIN FOR i IN 1..{INSERTS} LOOP"
        " INSERT INTO moods (user_id, score) VALUES ('u', i); COMMIT; END LOOP; END $$"
    )
    assert 0.4 < await host.fetchval("SELECT pg_notification_queue_usage()") < 0.6
    if end == "dies":
        rig = await start_rig(database.url, timing=SHORT)
        peer = rig.connect("u")
    await rig.settled()
    assert [one.data["mood_score"] for one in peer.received] == list(range(1, INSERTS + 1))
    await stranger.execute("ROLLBACK")
    heard = rig.wakes
    async with asyncio.timeout(PATIENCE):
        while rig.wakes == heard or await host.fetchval("SELECT pg_notification_queue_usage()") > 0.01:
            await log_mood(host, "nobody")
            await asyncio.sleep(0.01)

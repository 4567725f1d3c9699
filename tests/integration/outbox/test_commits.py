"""However transactions end and interleave, each committed row arrives once, in order, and nothing else does."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import asyncpg
import pytest

from app.core.position import Position
from app.outbox.catch_up import Archive
from app.outbox.receipts import Receipts
from app.outbox.tail import Timing
from app.outbox.walk import PageSize
from app.store.database import Database as Pool
from app.store.database import address
from tests.integration.outbox.conftest import StartRig
from tests.integration.outbox.writers import SETUP, Truth, Writer, write
from tests.support.host import add_user, log_mood, publish
from tests.support.postgres import Database
from tests.support.service import PATIENCE, Peer, Received, until

pytestmark = pytest.mark.every_major

USERS = [f"user-{number}" for number in range(6)]
PAGE = PageSize(rows=7)


@pytest.fixture
async def moody(database: Database, host: asyncpg.Connection) -> Database:
    """A database whose host has users, a deferred trigger and moods that can conflict."""
    await host.execute(SETUP)
    for user in USERS:
        await add_user(host, user)
    return database


@pytest.fixture
async def open_archive(database: Database) -> AsyncIterator[Callable[[], Archive]]:
    """An archive that is read in pages of seven."""
    pool = Pool(address(database.url), size=5)
    yield lambda: Archive(pool, asyncio.Semaphore(4), PAGE, timedelta(seconds=300), Receipts(pool))
    await pool.close()


async def test_every_commit_arrives_once_and_in_order(
    moody: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Twelve writers, a transaction that stays open beside them, pages of seven, two connections a user."""
    truth = Truth()
    rig = await start_rig(moody.url, page=PAGE)
    slow = Writer(await moody.connect(), truth, USERS, seed=0)
    slow.begin()
    await slow.connection.execute("BEGIN")
    for _ in USERS:
        await slow.insert()
    peers = [(user, rig.connect(user)) for user in USERS[:4] for _ in range(2)]
    ways = await write(moody, truth, USERS, writers=12, rows=2500, seed=1)
    assert len(ways) == 8, "not every way to write was gone"
    await rig.caught_up()
    assert not slow.pending.keys() & {r.data["mood_score"] for _, peer in peers for r in peer.received}
    slow.commits()
    await slow.connection.execute("COMMIT")
    slow.committed()
    await rig.settled()
    for user, peer in peers:
        truth.check(peer.received, [user])
    await rig.recorded()
    assert (
        await host.fetchval(
            "SELECT count(*) FROM realtime_events WHERE delivered <> (user_id = ANY($1))", USERS[:4]
        )
        == 0
    )


@pytest.mark.one_major
async def test_connections_that_come_and_go_under_load_get_no_gap_and_no_repeat(
    moody: Database, start_rig: StartRig
) -> None:
    """A device reconnects while rows keep coming; what it got before and after fits together exactly."""
    truth = Truth()
    rig = await start_rig(moody.url, page=PAGE)
    received: dict[str, list[Received]] = {user: [] for user in USERS}
    rng = random.Random(3)
    for number, user in enumerate(USERS):
        await rig.registry.register(user, f"token-{number}", "ios", None)
    connects = 0
    writing = asyncio.create_task(
        write(moody, truth, USERS, writers=8, rows=1500, seed=2, while_=lambda: connects < 60)
    )

    async def come_and_go(number: int) -> None:
        nonlocal connects
        user = USERS[number]
        while not writing.done():
            peer = await rig.connect_device(user, f"token-{number}")
            connects += 1
            enough = len(peer.received) + rng.randrange(40)
            await until(lambda: len(peer.received) >= enough or writing.done())
            # Leave when everything it got is confirmed, in the middle of whatever else is under way.
            session = peer.connection.session  # type: ignore[union-attr]
            await until(lambda: not session.in_flight)
            peer.leave()
            received[user] += peer.received
            await rig.recorded()

    await asyncio.gather(*(come_and_go(number) for number in range(4)))
    await writing
    for number, user in enumerate(USERS[:4]):
        peer = await rig.connect_device(user, f"token-{number}")
        await rig.settled(peer)
        truth.check(received[user] + peer.received, [user])


@pytest.mark.one_major
async def test_many_connects_while_rows_arrive_find_no_gap_at_the_seam(
    moody: Database, start_rig: StartRig
) -> None:
    """Each new connection without a device gets what nobody had and all that comes, each once."""
    truth = Truth()
    rig = await start_rig(moody.url, page=PAGE)
    keeper = rig.connect(USERS[0])
    peers: list[Peer] = []
    writing = asyncio.create_task(
        write(moody, truth, USERS[:1], writers=8, rows=800, seed=4, while_=lambda: len(peers) < 25)
    )
    while not writing.done():
        peers.append(rig.connect(USERS[0]))
        # By rows and not by the clock: where all are slow there must not be the more connections.
        enough = len(truth.moods) + 20
        await until(lambda: writing.done() or len(truth.moods) >= enough)
    await writing
    await rig.settled()
    truth.check(keeper.received, USERS[:1])
    for peer in (peer for peer in peers if peer.received):
        ids = peer.ids
        assert len(ids) == len(set(ids)), "a row came twice"
        # Since its first row it missed nothing: a row may only be absent when it was delivered before.
        start = peer.received[0].at
        missed = {score for score, written in truth.moods.items() if written.insert_began > start} - {
            one.data["mood_score"] for one in peer.received
        }
        assert not missed


@pytest.mark.one_major
async def test_a_read_cut_anywhere_covers_the_rest_exactly_once(
    moody: Database, host: asyncpg.Connection, open_archive: Callable[[], Archive]
) -> None:
    """Readers that stop after any message and resume from its position, while writers go on."""
    truth = Truth()
    archive = open_archive()
    begun = await archive.reader(USERS[0], takes_sync=False).start(None, with_undelivered=False)
    readers = [CutReader(archive, user, begun.first.end(), seed) for seed, user in enumerate(USERS[:4])]
    writing = asyncio.create_task(
        write(
            moody,
            truth,
            USERS,
            writers=8,
            rows=1500,
            seed=5,
            while_=lambda: any(reader.cuts < 40 for reader in readers),
        )
    )

    async def read(reader: CutReader) -> None:
        while not writing.done():
            await reader.read()
        while await reader.read():
            pass

    await asyncio.gather(*(read(reader) for reader in readers))
    await writing
    for reader in readers:
        while await reader.read():
            pass
        truth.check(reader.received, [reader.user])


async def test_a_tail_cut_in_mid_read_goes_on_where_it_was(
    moody: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """The service's connections are ended over and over while rows keep coming: none is lost or repeated."""
    truth = Truth()
    rig = await start_rig(moody.url, page=PageSize(rows=3), timing=Timing(sweep=0.05, retry=0.01))
    peers = [(user, rig.connect(user)) for user in USERS]
    failures = 0
    writing = asyncio.create_task(
        write(moody, truth, USERS, writers=6, rows=1000, seed=6, while_=lambda: failures < 12)
    )
    while not writing.done():
        await host.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'mindvibe-realtime' AND datname = current_database()"
        )
        await until(lambda: writing.done() or rig.tail.failure is not None)
        await until(lambda: writing.done() or rig.tail.failure is None)
        failures += 1
    await writing
    await rig.settled()
    for user, peer in peers:
        truth.check(peer.received, [user])


class CutReader:
    """A reader that keeps a position and nothing else, and stops reading at random messages."""

    def __init__(self, archive: Archive, user: str, position: Position, seed: int) -> None:
        self.archive = archive
        self.user = user
        self.position = position
        self.received: list[Received] = []
        self.cuts = 0
        self._rng = random.Random(seed)

    async def read(self) -> bool:
        """Read a while; whether there may be more."""
        reader = self.archive.reader(self.user, takes_sync=False)
        begun = await reader.start(self.position, with_undelivered=False)
        assert begun.lost is None
        patience = self._rng.randrange(1, 12)
        page = begun.page
        while True:
            for message in page.messages:
                self.position = begun.first.at(message.id)
                self.received.append(Received(_body(message.body), time.monotonic()))
                patience -= 1
                if patience == 0:
                    self.cuts += 1
                    return True
            if not page.more:
                break
            page = await reader.next_page()
        self.position = begun.first.end()
        return begun.partial


def _body(raw: bytes) -> dict[str, object]:
    body: dict[str, object] = json.loads(raw)
    return body


# ---- pages and their bounds


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1000, 1001])
async def test_a_full_page_is_neither_cut_nor_repeated(
    count: int, database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Just below, at and above the page's rows: for one who catches up and for the tail."""
    rig = await start_rig(database.url)
    early = rig.connect("u", position="")
    await rig.settled()
    await host.execute(
        "INSERT INTO moods (user_id, score) SELECT 'u', n FROM generate_series(1, $1::int) n", count
    )
    late = rig.connect("u", position=early.control[0]["position"])
    await rig.settled()
    assert [one.data["mood_score"] for one in early.received] == list(range(1, count + 1))
    assert late.ids == early.ids


@pytest.mark.parametrize("page_bytes", [10_000, 1 << 20])
async def test_rows_larger_than_a_page_arrive(
    page_bytes: int, database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Payloads of 64 KiB, of which sixteen make a page, and pages smaller than any of them."""
    rig = await start_rig(database.url, page=PageSize(data=page_bytes))
    await add_user(host, "u")
    await rig.registry.register("u", "token", "web", None)
    early = rig.connect("u")
    await rig.settled()
    for number in range(40):
        await publish(host, "u", "letter", number=number, text="x" * (65_000 if number % 2 else 10))
    late = await rig.connect_device("u", "token")
    await rig.settled()
    assert [one.data["number"] for one in early.received] == list(range(40))
    assert late.ids == early.ids


@pytest.mark.one_major
async def test_more_rows_than_ids_are_held_at_once_arrive(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Seventeen thousand rows of one transaction: through the tail, and by catching up with them."""
    rig = await start_rig(database.url)
    await add_user(host, "u")
    await rig.registry.register("u", "token", "web", None)
    early = rig.connect("u")
    await rig.settled()
    await host.execute("INSERT INTO moods (user_id, score) SELECT 'u', n FROM generate_series(1, 17000) n")
    late = await rig.connect_device("u", "token")
    await rig.settled()
    assert [one.data["mood_score"] for one in early.received] == list(range(1, 17001))
    assert late.ids == early.ids
    await rig.recorded()
    assert await host.fetchval("SELECT count(*) FROM realtime_events WHERE NOT delivered") == 0


async def test_rows_removed_between_pages_leave_the_others(
    database: Database, host: asyncpg.Connection, open_archive: Callable[[], Archive]
) -> None:
    """Single rows, a whole page and the last ones are deleted while somebody reads."""
    await host.execute("INSERT INTO moods (user_id, score) SELECT 'u', n FROM generate_series(1, 100) n")
    ids = [row[0] for row in await host.fetch("SELECT id FROM realtime_events ORDER BY id")]
    reader = open_archive().reader("u", takes_sync=False)
    begun = await reader.start(None, with_undelivered=True)
    got = [message.id for message in begun.page.messages]
    gone = {*ids[8:10], *ids[14:28], ids[34], *ids[90:]}
    await host.execute("DELETE FROM realtime_events WHERE id = ANY($1)", list(gone))
    more = begun.page.more
    while more:
        page = await reader.next_page()
        got += [message.id for message in page.messages]
        more = page.more
    assert got == [row_id for row_id in ids if row_id not in gone]


async def test_a_rolled_back_insert_sends_nothing(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """The control of the transactions above: the next row comes alone."""
    rig = await start_rig(database.url)
    peer = rig.connect("u")
    transaction = host.transaction()
    await transaction.start()
    await log_mood(host, "u", 1)
    await transaction.rollback()
    await log_mood(host, "u", 2)
    await rig.settled()
    assert [one.data["mood_score"] for one in peer.received] == [2]


async def test_a_connection_that_waits_for_its_turn_misses_nothing_that_others_get_meanwhile(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """An event that was delivered and marked between its registration and its read is its due as well."""
    rig = await start_rig(database.url)
    first = rig.connect("u")
    await rig.settled()
    async with asyncio.timeout(PATIENCE):
        for _ in range(8):
            await rig.archive.turns.acquire()
    late = rig.connect("u")
    await log_mood(host, "u", 1)
    await rig.settled(first)
    await rig.recorded()
    assert await host.fetchval("SELECT count(*) FROM realtime_events WHERE delivered") == 1

    for _ in range(8):
        rig.archive.turns.release()
    await rig.settled()

    assert late.ids == first.ids
    assert len(late.ids) == 1

"""What has reached its user is written down, whoever holds the rows and however the database fares."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from app.core.messages import RowKey
from app.core.position import Position
from app.core.snapshot import Snapshot
from app.lifecycle import Part
from app.outbox.receipts import Receipts
from app.store import devices, reads
from app.store.database import Database as Pool
from app.store.database import address
from app.store.receipts import DeviceKey
from tests.conftest import NewCluster, NewDatabase
from tests.support.host import add_user, delete_user, log_moods, queue_sync, row_keys
from tests.support.postgres import Database
from tests.support.service import PATIENCE, running, until, until_true

pytestmark = pytest.mark.every_major

UNDELIVERED = "SELECT count(*) FROM realtime_events WHERE NOT delivered"
END_WHO_WAITS_FOR_THE_STANDBY = """
SELECT bool_and(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"""


class Writing:
    """Receipts at work on a pool of their own."""

    def __init__(self, url: str, **options: float) -> None:
        self.pool = Pool(address(url), size=2)
        self.receipts = Receipts(self.pool, **{"interval": 0.01, "retry": 0.02, **options})
        self.part = Part("receipts", self.receipts.run)

    async def written(self) -> None:
        await until(lambda: self.receipts.unwritten == 0)

    async def position(self) -> Position:
        async with self.pool.driver() as connection:
            now = await reads.horizon(connection)
        return Position(now.snapshot, now.taken_at, now.incarnation)

    async def close(self) -> None:
        await self.part.stop()
        await self.pool.close()


@pytest.fixture
async def writing(database: Database) -> AsyncIterator[Writing]:
    writing = Writing(database.url)
    writing.part.start()
    yield writing
    await writing.close()


async def events_of(host: asyncpg.Connection, user: str, count: int) -> tuple[RowKey, ...]:
    """Write so many events, and return which they are."""
    await log_moods(host, [user], count)
    return await row_keys(
        host, "SELECT id, created_at FROM realtime_events WHERE user_id = $1 ORDER BY id", user
    )


async def sync_row_of(host: asyncpg.Connection, user: str) -> RowKey:
    """Queue a sync row, and return which it is."""
    row_id = await queue_sync(host, user)
    [row] = await row_keys(host, "SELECT id, created_at FROM sync_queue WHERE id = $1", row_id)
    return row


def ids_of(rows: tuple[RowKey, ...]) -> list[int]:
    return [row_id for row_id, _ in rows]


async def device_of(host: asyncpg.Connection, user: str) -> DeviceKey:
    """A device that has connected once."""
    await add_user(host, user)
    await host.execute(
        "INSERT INTO users_devices (user_id, device_token, platform) VALUES ($1, $1, 'ios')", user
    )
    connected = await devices.connect(host, user, user)
    assert connected is not None
    return connected.id, user, connected.generation


async def let_commits_wait(database: Database, host: asyncpg.Connection) -> None:
    """Name a synchronous standby that is not there, and see that it is waited for."""
    await host.execute("SET synchronous_commit = local")
    await host.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await host.execute("SELECT pg_reload_conf()")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(commit_until_cut_off(await database.connect()))
        tasks.create_task(until_true(host, END_WHO_WAITS_FOR_THE_STANDBY))


async def commit_until_cut_off(connection: asyncpg.Connection) -> None:
    with contextlib.suppress(asyncpg.AdminShutdownError, asyncpg.PostgresConnectionError):
        while True:
            await connection.execute("SELECT pg_logical_emit_message(true, '', '')")


async def test_what_a_client_refused_outlives_a_crash(
    private_cluster: NewCluster, new_database: NewDatabase
) -> None:
    """Positions pass over it, also those that are written after the crash: nothing else would send it again."""
    cluster = await asyncio.to_thread(private_cluster, options={"wal_writer_delay": "10s"})
    database = await new_database(cluster)
    host = await database.connect()
    [refused] = await events_of(host, "u", 1)
    device_id, _, _ = await device_of(host, "u")
    writing = Writing(database.url)
    writing.receipts.refuse(refused, "u", device_id, "cannot be shown")

    await writing.receipts.flush()
    await asyncio.to_thread(cluster.kill)
    await asyncio.to_thread(cluster.start)

    host = await database.connect()
    kept = await host.fetch("SELECT event_id, device_id FROM realtime_redeliveries")
    await writing.close()
    assert [tuple(row) for row in kept] == [(refused[0], device_id)]


async def test_a_refusal_whose_commit_is_not_answered_counts_once(
    private_cluster: NewCluster, new_database: NewDatabase
) -> None:
    """A synchronous standby is away: each attempt is committed here and waits, until its backend is ended."""
    cluster = await asyncio.to_thread(private_cluster)
    database = await new_database(cluster)
    host = await database.connect()
    [refused, left] = await events_of(host, "u", 2)
    device_id, _, _ = await device_of(host, "u")
    writing = Writing(database.url)
    await let_commits_wait(database, host)
    writing.receipts.refuse(refused, "u", device_id, "cannot be shown")
    writing.receipts.left_unacked(left, "u", device_id)
    writing.part.start()

    for _ in range(3):
        await until_true(host, END_WHO_WAITS_FOR_THE_STANDBY)
    await host.execute("ALTER SYSTEM RESET synchronous_standby_names")
    await host.execute("SELECT pg_reload_conf()")
    await writing.written()

    tried = await host.fetch("SELECT event_id, nacks, attempts FROM realtime_redeliveries ORDER BY event_id")
    await writing.close()
    assert [tuple(row) for row in tried] == [(refused[0], 1, 0), (left[0], 0, 1)]


async def test_what_is_refused_while_a_refusal_is_written_counts_once(
    database: Database, host: asyncpg.Connection, writing: Writing
) -> None:
    """The second refusal is on its way, held up by whoever has the row; three are what the client said."""
    [refused] = await events_of(host, "u", 1)
    writing.receipts.refuse(refused, "u", None, None)
    await writing.written()
    holder = await database.connect()
    async with holder.transaction():
        await holder.execute("SELECT FROM realtime_redeliveries FOR UPDATE")
        writing.receipts.refuse(refused, "u", None, None)
        await until_true(host, "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted")
        writing.receipts.refuse(refused, "u", None, None)
    await writing.written()
    assert await host.fetchval("SELECT nacks FROM realtime_redeliveries") == 3


async def stored_position(host: asyncpg.Connection, device_id: int) -> Position | None:
    """What the table says that a device has."""
    row = await host.fetchrow("SELECT user_id, device_token FROM users_devices WHERE id = $1", device_id)
    async with host.transaction():
        connected = await devices.connect(host, *row)
        await host.execute("UPDATE users_devices SET generation = generation - 1 WHERE id = $1", device_id)
    return connected.position if connected else None


async def test_rows_that_somebody_holds_are_skipped_and_written_later(
    database: Database, host: asyncpg.Connection, writing: Writing
) -> None:
    """Nobody waits for them: the others are written at once, these when they are let go."""
    rows = await events_of(host, "u", 20)
    await add_user(host, "u")
    sync_row = await sync_row_of(host, "u")
    holder = await database.connect()
    async with holder.transaction():
        await holder.execute("SELECT FROM realtime_events WHERE id = ANY($1) FOR UPDATE", ids_of(rows[:5]))
        await holder.execute("SELECT FROM sync_queue FOR UPDATE")
        writing.receipts.add("u", rows, (sync_row,))
        await until(lambda: writing.receipts.unwritten == 6)
        assert await host.fetchval(UNDELIVERED) == 5
    await writing.written()
    assert await host.fetchval(UNDELIVERED) == 0
    assert await host.fetchval("SELECT synced AND synced_at IS NOT NULL FROM sync_queue")
    assert writing.receipts.written == 21


async def test_more_held_rows_than_a_batch_keep_no_others_waiting(
    database: Database, host: asyncpg.Connection
) -> None:
    """Whoever holds the oldest thousand does not stop the receipts of everybody else."""
    writing = Writing(database.url, batch=10)
    writing.part.start()
    rows = await events_of(host, "u", 100)
    holder = await database.connect()
    async with holder.transaction():
        await holder.execute("SELECT FROM realtime_events WHERE id = ANY($1) FOR UPDATE", ids_of(rows[:25]))
        writing.receipts.add("u", rows, ())
        async with asyncio.timeout(PATIENCE):
            while await host.fetchval(UNDELIVERED) > 25:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        assert all(writing.receipts.is_unwritten(row) for row in rows[:25])
    await writing.receipts.flush()
    await writing.close()
    assert await host.fetchval(UNDELIVERED) == 0


async def test_a_device_that_somebody_holds_is_moved_later(
    database: Database, host: asyncpg.Connection, writing: Writing
) -> None:
    """Its position is not left to the device's next row, which may never come."""
    device = await device_of(host, "u")
    position = await writing.position()
    holder = await database.connect()
    async with holder.transaction():
        await holder.execute("SELECT FROM users_devices FOR UPDATE")
        rows = await events_of(host, "u", 1)
        writing.receipts.add("u", rows, ())
        writing.receipts.move(device, position)
        await until(lambda: writing.receipts.written == 1)
        assert writing.receipts.unwritten == 1
    await writing.written()
    assert await stored_position(host, device[0]) == position


async def test_a_position_of_an_older_generation_is_passed_over(
    host: asyncpg.Connection, writing: Writing
) -> None:
    """What a connection says that another has taken over from does not count, nor is it tried again."""
    device_id, user, generation = await device_of(host, "u")
    old = await writing.position()
    new = replace(old, seen=Snapshot(old.seen.xmax + 5))
    writing.receipts.move((device_id, user, generation - 1), old)
    writing.receipts.move((device_id, user, generation), new)
    await writing.written()
    assert await stored_position(host, device_id) == new
    writing.receipts.move((device_id, user, generation - 1), old)
    await writing.written()
    assert await stored_position(host, device_id) == new


async def test_a_position_of_a_generation_that_the_database_has_lost_is_stored(
    database: Database, host: asyncpg.Connection, writing: Writing
) -> None:
    """It was made on a primary whose standby had not heard of it, and lives on; held, it is tried again."""
    device_id, user, generation = await device_of(host, "u")
    position = await writing.position()
    holder = await database.connect()
    async with holder.transaction():
        await holder.execute("SELECT FROM users_devices FOR UPDATE")
        writing.receipts.add("u", await events_of(host, "u", 1), ())
        writing.receipts.move((device_id, user, generation + 2), position)
        await until(lambda: writing.receipts.written == 1)
        assert writing.receipts.unwritten == 1
    await writing.written()
    assert await stored_position(host, device_id) == position


async def test_a_position_of_another_user_s_device_is_passed_over(
    host: asyncpg.Connection, writing: Writing
) -> None:
    """Where the database has lost a device, its id can be another one's by now."""
    device_id, _, generation = await device_of(host, "u")
    before = await stored_position(host, device_id)
    writing.receipts.move((device_id, "another", generation), await writing.position())
    await writing.written()
    assert await stored_position(host, device_id) == before


async def test_a_position_in_mid_read_is_stored_as_it_is(host: asyncpg.Connection, writing: Writing) -> None:
    """All its parts come back."""
    device = await device_of(host, "u")
    here = await writing.position()
    position = replace(
        here,
        seen=Snapshot(here.seen.xmax, frozenset({here.seen.xmax - 3, here.seen.xmax - 1})),
        reading=Snapshot(here.seen.xmax + 7, frozenset({here.seen.xmax + 2})),
        after_id=12345,
    )
    writing.receipts.move(device, position)
    await writing.written()
    assert await stored_position(host, device[0]) == position


async def test_receipts_of_rows_and_devices_that_are_gone_are_forgotten(
    host: asyncpg.Connection, writing: Writing
) -> None:
    """A deleted user's rows are nobody's business any more."""
    device = await device_of(host, "u")
    position = await writing.position()
    sync_row = await sync_row_of(host, "u")
    await delete_user(host, "u")
    writing.receipts.add("u", ((10_000_000, 0),), (sync_row,))
    writing.receipts.move(device, position)
    await writing.written()


async def test_a_host_that_deletes_two_users_one_after_the_other_waits_for_no_receipt(
    database: Database, host: asyncpg.Connection, writing: Writing
) -> None:
    """Receipts of both come in between: whoever waited there for the first would deadlock on the second."""
    known = [await device_of(host, user) for user in ("second", "first")]
    sync_rows = tuple([await sync_row_of(host, user) for user in ("second", "first")])
    position = await writing.position()
    deleting = await database.connect()
    async with deleting.transaction():
        await delete_user(deleting, "first")
        for device in known:
            writing.receipts.add("u", (), sync_rows)
            writing.receipts.move(device, position)
        await until(lambda: writing.receipts.unwritten == 2)  # a row and a device of the first
        await delete_user(deleting, "second")
    await writing.written()
    assert writing.receipts.failure is None


async def test_a_hosts_cascade_never_deadlocks_with_receipts(
    database: Database, host: asyncpg.Connection, writing: Writing
) -> None:
    """Users with devices and sync rows are deleted while receipts and positions of theirs are written."""
    deleting = await database.connect()
    for turn in range(40):
        users = [f"user-{turn}-{number}" for number in range(4)]
        known = [await device_of(host, user) for user in users]
        rows = await row_keys(
            host,
            "INSERT INTO sync_queue (user_id, action_type, payload)"
            " SELECT u, 'refresh', '{}' FROM generate_series(1, 20), unnest($1::text[]) AS u"
            " RETURNING id, created_at",
            users,
        )
        position = await writing.position()
        gone = asyncio.create_task(deleting.execute("DELETE FROM users WHERE id = ANY($1)", users[::-1]))
        for number, device in enumerate(known):
            writing.receipts.add("u", (), rows[number::4])
            writing.receipts.move(device, position)
        await gone
        await writing.written()
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await host.fetchval(deadlocks) == 0
    assert writing.receipts.failure is None


async def test_receipts_wait_for_a_database_that_is_away(
    private_cluster: NewCluster, new_database: NewDatabase
) -> None:
    """They are kept, and written when it is back; the device's position too."""
    cluster = await asyncio.to_thread(private_cluster)
    database = await new_database(cluster)
    host = await database.connect()
    device = await device_of(host, "u")
    async with running(database.url) as rig:
        peer = await rig.connect_device("u", "u", mute=True)
        await log_moods(host, ["u"], 20)
        await rig.caught_up()
        await until(lambda: len(peer.received) == 20)
        await host.close()
        await asyncio.to_thread(cluster.stop)
        peer.unmute()
        await until(lambda: rig.receipts.failure is not None)
        assert rig.receipts.unwritten == 21
        await asyncio.to_thread(cluster.start)
        await rig.recorded()
        assert rig.receipts.failure is None
        host = await database.connect()
        assert await host.fetchval(UNDELIVERED) == 0
        position = await stored_position(host, device[0])
        assert position is not None
        assert all(
            position.has(int(row["xid"]), row["id"])
            for row in await host.fetch("SELECT id, xid FROM realtime_events")
        )


async def test_a_batch_that_is_cut_short_is_written_by_the_flush(
    database: Database, host: asyncpg.Connection
) -> None:
    """Stopped in mid-write, as at the end of the process: neither rows nor positions are forgotten."""
    writing = Writing(database.url)
    rows = await events_of(host, "u", 10)
    device = await device_of(host, "u")
    position = await writing.position()
    blocker = await database.connect()
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE users_devices")
        writing.receipts.add("u", rows, ())
        writing.receipts.move(device, position)
        writing.part.start()
        async with asyncio.timeout(PATIENCE):
            while not await host.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await writing.part.stop()
    await writing.receipts.flush()
    await writing.close()
    assert writing.receipts.unwritten == 0
    assert await host.fetchval(UNDELIVERED) == 0
    assert await stored_position(host, device[0]) == position


async def test_what_a_client_has_confirmed_is_not_repeated_to_it_before_it_is_written(
    host: asyncpg.Connection, database: Database
) -> None:
    """A client that returns at once gets nothing of what the receipts still hold."""
    async with running(database.url, receipts_interval=3600.0) as rig:
        peer = rig.connect("u")
        await log_moods(host, ["u"], 3)
        await rig.settled()
        peer.leave()
        assert len(peer.ids) == 3

        returned = rig.connect("u")
        await log_moods(host, ["u"], 1)
        await rig.settled(returned)

        assert await host.fetchval("SELECT count(*) FROM realtime_events WHERE NOT delivered") == 4
        assert len(returned.ids) == 1
        assert not set(returned.ids) & set(peer.ids)

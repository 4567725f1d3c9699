"""A user is deleted: silence at once, no rows within a minute, and nobody waits."""

import asyncio
import time

import asyncpg
import pytest

from app.scheduler.housekeeping import Erase
from app.store import erasure, turn
from app.store.database import Database as Pool
from app.store.turn import Turn
from tests.integration.scheduler.clients import connect, connect_live, eventually
from tests.integration.scheduler.conftest import StartService
from tests.integration.scheduler.rows import add_device, add_event, add_letter, add_sync_row, ids, letters
from tests.support.host import add_user, delete_user, log_mood, log_moods, publish
from tests.support.postgres import Database

REVOKED = 4403
DELETED = 10_000
ROWS = 100_000
PAGE = 500
"""The default of CATCH_UP_PAGE."""


@pytest.mark.every_major
async def test_from_the_deletion_on_nothing_is_delivered_and_connections_close(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """Every connection is told 4403, an event written later reaches nobody, and who returns is sent away."""
    service = await start_service()
    user, other = await add_user(host), await add_user(host)
    leaving = [await connect_live(service, user), await connect_live(service, user)]
    staying = await connect_live(service, other)
    await log_mood(host, user)
    for client in leaving:
        await client.until(lambda c: len(c.ids) == 1)

    async with host.transaction():
        await delete_user(host, user)
        await publish(host, user, "too_late")
    began = time.monotonic()
    for client in leaving:
        await client.until(lambda c: c.close_code is not None)
    closed_after = time.monotonic() - began
    await publish(host, user, "much_too_late")
    await log_mood(host, other)
    await staying.until(lambda c: len(c.ids) == 1)
    returning = await connect(service, user)
    await returning.until(lambda c: c.close_code is not None)

    assert [client.close_code for client in [*leaving, returning]] == [REVOKED] * 3
    assert [len(client.ids) for client in leaving] == [1, 1]
    assert returning.ids == []
    assert staying.close_code is None
    assert closed_after < 10


@pytest.mark.every_major
async def test_everything_of_a_deleted_user_goes_and_nothing_of_anybody_else(
    host: asyncpg.Connection, pool: Pool
) -> None:
    """Events of any state, sync rows, devices, dead letters, redeliveries; also what was written after it."""
    user, other = await add_user(host), await add_user(host)
    for owner in (user, other):
        for row in (
            await add_event(host, owner, days=0),
            await add_event(host, owner, days=1, delivered=1),
            await add_event(host, owner, days=31, settled_as="expired"),
        ):
            await add_letter(host, row)
        await add_sync_row(host, owner, days=0)
        await add_device(host, owner)
    await host.execute(
        "UPDATE realtime_dead_letters AS l SET user_id = e.user_id FROM realtime_events AS e WHERE e.id = l.event_id"
    )
    await host.execute(
        "INSERT INTO realtime_redeliveries (event_id, user_id) SELECT id, user_id FROM realtime_events"
    )
    await delete_user(host, user)
    await publish(host, user, "too_late")

    await Erase(pool, batch=2, pause=0).run()

    tables = (
        "realtime_events",
        "realtime_dead_letters",
        "realtime_redeliveries",
        "sync_queue",
        "users_devices",
    )
    for table in tables:
        owners = await host.fetch(f"SELECT DISTINCT user_id FROM {table}")
        assert [row[0] for row in owners] == [other], table
    assert len(await ids(host)) == len(await letters(host)) == 3


@pytest.mark.one_major
async def test_a_hundred_thousand_rows_go_while_the_host_writes_without_waiting(
    host: asyncpg.Connection, database: Database, start_service: StartService
) -> None:
    """They are gone within a minute by the running service's own doing; no insert meets a lock."""
    user, other = await add_user(host), await add_user(host)
    await log_moods(host, [user], ROWS)
    await start_service(erase_interval=10)
    writer = await database.connect()
    await writer.execute("SET lock_timeout = '100ms'")

    began = time.monotonic()
    await delete_user(host, user)
    written, left = 0, ROWS
    async with asyncio.timeout(120):
        while left:
            async with writer.transaction():
                await log_mood(writer, other)
                await log_mood(writer, user)  # the host's own tables may outlive the user
            written += 1
            left = await host.fetchval(
                "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND payload->>'mood_score' <> '7'",
                user,
            )
    took = time.monotonic() - began

    assert took < 60
    assert written > 10
    await eventually(lambda: _none_of(host, user))
    assert await host.fetchval("SELECT count(*) FROM realtime_events WHERE user_id = $1", other) == written


@pytest.mark.one_major
async def test_who_is_in_the_middle_of_a_hundred_thousand_rows_gets_no_page_more(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """The next page is not read, and the connection closed, though nobody tells this process of the deletion."""
    user = await add_user(host)
    await log_moods(host, [user], ROWS)
    service = await start_service(sweep_interval=3600, bells="off")
    client = await connect(service, user)
    await client.until(lambda c: len(c.ids) > PAGE)

    await delete_user(host, user)
    had = len(client.ids)
    await client.until(lambda c: c.close_code is not None)

    assert client.close_code == REVOKED
    assert len(client.ids) <= had + 2 * PAGE


async def test_a_host_that_waits_would_be_noticed(host: asyncpg.Connection, database: Database) -> None:
    """The control of the test above: where a lock stands in its way, the same insert fails."""
    user = await add_user(host)
    writer = await database.connect()
    await writer.execute("SET lock_timeout = '100ms'")
    async with host.transaction():
        await host.execute("LOCK TABLE realtime_events IN SHARE MODE")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await log_mood(writer, user)
    await log_mood(writer, user)


async def test_a_deletion_is_seen_to_at_once_and_not_at_the_next_interval(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """The command that closes connections also hastens the job."""
    service = await start_service(erase_interval=3600)
    user = await add_user(host)
    await log_moods(host, [user], 100)

    async def first_run_is_over() -> bool:
        return service.scheduler.outcomes["erase"].runs > 0 and service.hub.routed is not None

    await eventually(first_run_is_over)
    await delete_user(host, user)

    await eventually(lambda: _none_of(host, user))


async def test_while_another_process_erases_this_one_does_not_wait(
    host: asyncpg.Connection, database: Database, pool: Pool
) -> None:
    """It leaves the work to that one; afterwards it would do it."""
    user = await add_user(host)
    await log_mood(host, user)
    await delete_user(host, user)
    other = await database.connect()
    async with other.transaction():
        assert await turn.take(other, Turn.ERASE)
        async with asyncio.timeout(10):
            await Erase(pool).run()
        assert len(await ids(host)) == 1

    await Erase(pool).run()
    assert await ids(host) == []


async def test_users_erased_long_ago_cost_a_call_nothing(host: asyncpg.Connection, pool: Pool) -> None:
    """After thousands of deletions that left no rows, only that of the one more is visited."""
    await _delete_many(host, "gone")
    user = await add_user(host)
    await log_moods(host, [user], 10_000)
    assert await _walk(pool) == await _walk(pool) == [0] * (DELETED // 500 + 1)
    await delete_user(host, user)

    began = time.monotonic()
    assert await _walk(pool) == [1000] * 10 + [0]

    assert time.monotonic() - began < 60
    assert await ids(host) == []


@pytest.mark.one_major
async def test_a_hundred_thousand_rows_go_after_ten_thousand_deletions_beside_an_open_transaction(
    host: asyncpg.Connection, database: Database, pool: Pool
) -> None:
    """No deletion can be marked meanwhile; a walk through all of them still visits each a bounded number of times."""
    other = await database.connect()
    async with other.transaction():
        await other.execute("SELECT pg_current_xact_id()")
        await _delete_many(host, "gone")
        user = await add_user(host)
        await log_moods(host, [user], ROWS)
        await delete_user(host, user)

        began = time.monotonic()
        first = await _walk(pool)
        await host.execute(
            "ANALYZE realtime_events"
        )  # as autovacuum may: nothing is there for it, all is kept
        second = await _walk(pool)
        took = time.monotonic() - began

        assert sum(first) == ROWS
        assert await _none_of(host, user)
        assert len(first) == len(second) + ROWS // 1000
        assert took < 60
        assert await _marked(host) == 0
    await _walk(pool)
    assert await _marked(host) == DELETED + 1


async def test_what_commits_after_the_deletion_goes_too(
    host: asyncpg.Connection, database: Database, pool: Pool
) -> None:
    """Its transaction was under way; that the deleting one began before it must not hide it, nor that the user is back."""
    user, returned = await add_user(host), await add_user(host)
    deleting, late = await database.connect(), await database.connect()
    begun = deleting.transaction(), late.transaction()
    for transaction, connection in zip(begun, (deleting, late), strict=True):
        await transaction.start()
        await connection.execute("SELECT pg_current_xact_id()")
    for owner in (user, returned):
        await publish(late, owner, "late")
        await delete_user(deleting, owner)
    await begun[0].commit()
    await add_user(host, returned)
    await log_mood(host, returned)
    kept = await ids(host)

    for _ in range(3):
        assert await _walk(pool) == [0]
    await begun[1].commit()
    assert len(await ids(host)) == 3
    assert await _walk(pool) == [2]

    assert await ids(host) == kept
    assert await _walk(pool) == [0]
    assert await _walk(pool) == [0]
    assert await _marked(host) == 2


async def test_rows_that_somebody_holds_go_the_next_time(
    host: asyncpg.Connection, database: Database, pool: Pool
) -> None:
    """A deletion is not done with while they are left, however often it was looked at."""
    user = await add_user(host)
    await log_moods(host, [user], 3)
    await delete_user(host, user)
    other = await database.connect()
    for removed in (2, 0):
        async with other.transaction():
            await other.execute("SELECT FROM realtime_events ORDER BY id LIMIT 1 FOR UPDATE")
            assert await _walk(pool) == [removed]
    assert await _marked(host) == 0

    assert await _walk(pool) == [1]
    await _walk(pool)
    assert await _marked(host) == 1


async def test_what_is_written_for_a_user_long_gone_goes_as_well(
    host: asyncpg.Connection, pool: Pool
) -> None:
    """The host's own tables may outlive the user; one who came back keeps everything."""
    users = [await add_user(host, f"user-{number}") for number in range(5)]
    for user in users:
        await delete_user(host, user)
    job = Erase(pool, examined=2, pause=0)
    await job.run()
    await job.run()
    assert await _marked(host) == 5
    await add_user(host, users[3])
    for user in users:
        await log_mood(host, user)
    await host.execute(
        "INSERT INTO realtime_redeliveries (event_id, user_id) SELECT id, user_id FROM realtime_events"
    )
    await host.execute("DELETE FROM realtime_events WHERE user_id = $1", users[0])

    for _ in range(3):
        await job.run()

    for table in ("realtime_events", "realtime_redeliveries"):
        owners = await host.fetch(f"SELECT user_id FROM {table}")
        assert [row["user_id"] for row in owners] == [users[3]]
    for _ in range(3):
        await job.run()
    assert await _marked(host) == 5


async def test_marks_brought_from_another_cluster_prove_nothing(host: asyncpg.Connection, pool: Pool) -> None:
    """A dump holds transaction ids that this one has not reached; its deletions are visited anew."""
    user = await add_user(host)
    await delete_user(host, user)
    await host.execute('UPDATE realtime_commands SET detail = \'{"visited_in": "9000000000"}\'')
    for _ in range(2):
        assert await _walk(pool) == [0]

    assert await _marked(host) == 1


async def _delete_many(host: asyncpg.Connection, prefix: str) -> None:
    """Delete users, none of whom has rows."""
    await host.execute("INSERT INTO users SELECT $1 || n FROM generate_series(1, $2::int) n", prefix, DELETED)
    await host.execute("DELETE FROM users WHERE starts_with(id, $1)", prefix)


async def _walk(pool: Pool) -> list[int]:
    """Visit every deletion not done with; return how many rows each call removed."""
    removed: list[int] = []
    after_id: int | None = 0
    while after_id is not None:
        async with pool.driver() as connection:
            erased = await erasure.erase(connection, after_id, 1000)
        assert erased is not None
        removed.append(erased.removed)
        after_id = erased.after_id
    return removed


async def _marked(host: asyncpg.Connection) -> int:
    """How many deletions are done with."""
    return await host.fetchval(
        "SELECT count(*) FROM realtime_commands WHERE kind = 'user_deleted' AND detail -> 'erased' IS NOT NULL"
    )


async def _none_of(host: asyncpg.Connection, user_id: str) -> bool:
    return not await host.fetchval("SELECT count(*) FROM realtime_events WHERE user_id = $1", user_id)

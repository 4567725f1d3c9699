"""A user is deleted: silence at once, no rows within a minute, and nobody waits."""

import asyncio
import time

import asyncpg
import pytest

from app.scheduler.housekeeping import Erase
from app.store import turn
from app.store.database import Database as Pool
from app.store.turn import Turn
from tests.integration.scheduler.clients import connect, connect_live, eventually
from tests.integration.scheduler.conftest import StartService
from tests.integration.scheduler.rows import add_device, add_event, add_letter, add_sync_row, ids, letters
from tests.support.host import add_user, delete_user, log_mood, log_moods, publish
from tests.support.postgres import Database

REVOKED = 4403
ROWS = 100_000


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
    """Events of any state, sync rows, devices and dead letters; also what was written after the deletion."""
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
    await delete_user(host, user)
    await publish(host, user, "too_late")

    await Erase(pool, batch=2, pause=0).run()

    for table in ("realtime_events", "realtime_dead_letters", "sync_queue", "users_devices"):
        owners = await host.fetch(f"SELECT DISTINCT user_id FROM {table}")
        assert [row[0] for row in owners] == [other], table
    assert len(await ids(host)) == len(await letters(host)) == 3


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


async def _none_of(host: asyncpg.Connection, user_id: str) -> bool:
    return not await host.fetchval("SELECT count(*) FROM realtime_events WHERE user_id = $1", user_id)

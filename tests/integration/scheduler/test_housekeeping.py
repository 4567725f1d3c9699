"""What goes when it is old enough, by whom, and what that costs everybody else."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from app.scheduler.housekeeping import Ages, Expire, ForgetDevices, Purge
from app.scheduler.presence import DevicesSeen
from app.store import retention, turn
from app.store.database import Database as Pool
from app.store.turn import Turn
from tests.integration.scheduler.clients import connect_live, eventually
from tests.integration.scheduler.conftest import StartService
from tests.integration.scheduler.rows import (
    add_device,
    add_event,
    add_letter,
    add_many_events,
    add_redelivery,
    add_sync_row,
    ids,
    letters,
)
from tests.support.host import add_user
from tests.support.postgres import Database

AGES = Ages()


class TestExpire:
    """Given up when undelivered for too long."""

    @pytest.mark.every_major
    async def test_an_event_undelivered_for_a_month_becomes_a_dead_letter_and_stays(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """It is settled and listed with its attempts; a younger, a delivered and a settled one are not."""
        user = await add_user(host)
        old = await add_event(host, user, days=31)
        await add_event(host, user, days=29)
        await add_event(host, user, days=31, delivered=31)
        await add_event(host, user, days=31, settled_as="collapsed")
        await host.execute("UPDATE realtime_events SET attempts = 3, next_attempt_at = now()")
        before = await ids(host)

        await Expire(pool, AGES).run()
        await Expire(pool, AGES).run()

        assert await ids(host) == before
        assert await letters(host) == [
            {"event_id": old, "user_id": user, "device_id": None, "reason": "expired", "attempts": 3}
        ]
        settled = await host.fetch(
            "SELECT id, next_attempt_at FROM realtime_events WHERE settled_as = 'expired'"
        )
        assert [tuple(row) for row in settled] == [(old, None)]

    @pytest.mark.every_major
    async def test_what_was_redriven_has_its_time_again(self, host: asyncpg.Connection, pool: Pool) -> None:
        """Thirty days from then; and it ends no walk for those that lie behind it."""
        user = await add_user(host)
        redriven, old = [await add_event(host, user, days=40) for _ in range(2)]
        await Expire(pool, AGES).run()
        letter = await host.fetchval("SELECT id FROM realtime_dead_letters WHERE event_id = $1", redriven)
        assert await host.fetchval("SELECT realtime_redrive($1)", letter)
        await host.execute("UPDATE realtime_events SET settled_as = NULL WHERE id = $1", old)
        await host.execute("DELETE FROM realtime_dead_letters")
        await host.execute("UPDATE realtime_events SET redriven_at = redriven_at - interval '29 days'")

        async with pool.driver() as connection:
            first = await retention.EXPIRE_EVENTS.batch(connection, 0, AGES.undelivered, examined=1)
            assert first == retention.Batch(0, redriven)
        await Expire(pool, AGES).run()
        assert [row["event_id"] for row in await letters(host)] == [old]

        await host.execute("UPDATE realtime_events SET redriven_at = redriven_at - interval '2 days'")
        await Expire(pool, AGES).run()
        assert [row["event_id"] for row in await letters(host)] == [redriven, old]

    @pytest.mark.every_major
    async def test_a_sync_row_that_no_device_came_for_goes_with_a_dead_letter(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """The letter stays as the trace; a younger row waits on, and a reader from before is told."""
        user = await add_user(host)
        old = await add_sync_row(host, user, days=31)
        young = await add_sync_row(host, user, days=29)
        synced = await add_sync_row(host, user, days=31, synced=1)
        written_at = await host.fetchval("SELECT created_at FROM sync_queue WHERE id = $1", old)

        await Expire(pool, AGES).run()

        assert await ids(host, "sync_queue") == [young, synced]
        assert [(row["event_id"], row["reason"]) for row in await letters(host)] == [(old, "expired")]
        assert await purged_through(host) == written_at

    async def test_there_is_no_dead_letter_where_nobody_waited(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """What the user's only phone uploaded was for nobody; with a second phone it was for that one."""
        one, two = await add_user(host), await add_user(host)
        (only, _), (first, _), _ = [await add_device(host, user) for user in (one, two, two)]
        await add_device(host, one, "web")
        await add_sync_row(host, one, days=31, device_id=only)
        missed = await add_sync_row(host, two, days=31, device_id=first)

        await Expire(pool, AGES).run()

        assert await ids(host, "sync_queue") == []
        assert [row["event_id"] for row in await letters(host)] == [missed]


class TestPurge:
    """Removed when kept for long enough."""

    @pytest.mark.every_major
    async def test_events_are_kept_for_a_week_from_their_delivery(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """Counted from delivery and not from writing; what nobody got yet stays, what was settled goes."""
        user = await add_user(host)
        gone = [
            await add_event(host, user, days=20, delivered=8),
            await add_event(host, user, days=8, delivered=8),
            await add_event(host, user, days=40, settled_as="expired"),
            await add_event(host, user, days=8, settled_as="collapsed"),
        ]
        kept = [
            await add_event(host, user, days=20, delivered=6),
            await add_event(host, user, days=20),
            await add_event(host, user, days=6, settled_as="collapsed"),
            await add_event(host, user, days=0),
        ]

        await Purge(pool, AGES).run()

        assert await ids(host) == kept
        assert min(kept) > max(gone)

    async def test_all_old_tickets_go_however_many_there_are(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """One user may ask for thousands between two rounds; those that are good stay."""
        await host.execute(
            "INSERT INTO realtime_tickets (hash, user_id, expires_at, single_use, good_until)"
            " SELECT sha256(n::text::bytea), 'ada', 0, true,"
            "        now() + CASE WHEN n > 0 THEN interval '-1 s' ELSE interval '1 hour' END"
            " FROM generate_series(-2, 12500) AS n"
        )

        await Purge(pool, AGES, pause=0).run()

        assert await host.fetchval("SELECT count(*) FROM realtime_tickets") == 3

    async def test_an_event_is_kept_for_as_long_as_its_dead_letter(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """An operator can redrive it for ninety days, also when it is given up for one device only."""
        user = await add_user(host)
        listed = [
            await add_event(host, user, days=60, settled_as="expired"),
            await add_event(host, user, days=60, delivered=60),
        ]
        forgotten = await add_event(host, user, days=130, settled_as="expired")
        await add_letter(host, listed[0], days=30)
        await add_letter(host, listed[1], days=30, device_id=7)
        await add_letter(host, forgotten, days=91)

        await Purge(pool, AGES).run()

        assert await ids(host) == listed
        assert [row["event_id"] for row in await letters(host)] == listed

    @pytest.mark.every_major
    async def test_what_a_device_is_still_to_be_sent_again_is_kept(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """Events and sync rows, while the record or the letter of it is; one that only counts keeps nothing."""
        user = await add_user(host)
        device_id, _ = await add_device(host, user)
        kept, counted = [await add_event(host, user, days=60, delivered=60) for _ in range(2)]
        rows = [await add_sync_row(host, user, days=60, synced=60) for _ in range(3)]
        for row in (kept, rows[0]):
            await add_redelivery(host, row, user, device_id=device_id)
        await add_redelivery(host, counted, user, device_id=device_id, pending=False)
        await add_letter(host, rows[1], device_id=device_id)

        await Purge(pool, AGES).run()

        assert await ids(host) == [kept]
        assert await ids(host, "sync_queue") == rows[:2]
        assert len(await ids(host, "realtime_redeliveries")) == 3

    @pytest.mark.every_major
    async def test_what_was_never_taken_becomes_a_dead_letter_in_the_end(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """Ninety days after the first time, when it was still due to a device that is there; the event stays."""
        user = await add_user(host)
        device_id, _ = await add_device(host, user)
        events = [await add_event(host, user, days=100, delivered=100) for _ in range(4)]
        await add_redelivery(host, events[0], user, days=91, device_id=device_id)
        await add_redelivery(host, events[1], user, days=91, device_id=device_id, pending=False)
        await add_redelivery(host, events[2], user, days=91, device_id=device_id + 1)
        await add_redelivery(host, events[3], user, days=89, device_id=device_id)
        await host.execute("UPDATE realtime_redeliveries SET attempts = 32767, nacks = 3")

        await Purge(pool, AGES).run()

        assert await letters(host) == [
            {
                "event_id": events[0],
                "user_id": user,
                "device_id": device_id,
                "reason": "expired",
                "attempts": 32_770,
            }
        ]
        assert await ids(host) == [events[0], events[3]]
        assert len(await ids(host, "realtime_redeliveries")) == 1

    async def test_whoever_came_before_an_event_was_redriven_is_told_when_it_goes(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """It was new to him, however long ago it was written."""
        event = await add_event(host, await add_user(host), days=130, settled_as="expired")
        redriven_at = await host.fetchval(
            "UPDATE realtime_events SET redriven_at = now() - interval '95 days' WHERE id = $1 RETURNING redriven_at",
            event,
        )

        await Purge(pool, AGES).run()

        assert await ids(host) == []
        assert await purged_through(host) == redriven_at

    async def test_rows_of_the_predecessor_go_by_when_they_were_written(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """It kept no time of delivery."""
        user = await add_user(host)
        await add_event(host, user, days=8, delivered=8)
        young = await add_event(host, user, days=6, delivered=6)
        await host.execute("UPDATE realtime_events SET delivered_at = NULL")

        await Purge(pool, AGES).run()

        assert await ids(host) == [young]

    @pytest.mark.every_major
    async def test_purged_through_is_the_latest_delivery_removed(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """It moves to the greatest of all that went, of events and sync rows, and never back."""
        user = await add_user(host)
        for days in (9, 8, 12):
            await add_event(host, user, days=20, delivered=days)
        latest = await host.fetchval("SELECT max(delivered_at) FROM realtime_events")
        await add_sync_row(host, user, days=20, synced=10)
        await add_event(host, user, days=20, delivered=1)
        assert await purged_through(host) is None

        await Purge(pool, AGES).run()
        assert await purged_through(host) == latest

        await add_event(host, user, days=20, delivered=15)
        await Purge(pool, AGES).run()
        assert len(await ids(host)) == 1
        assert await purged_through(host) == latest

        await add_sync_row(host, user, days=20, synced=7.5)
        synced_at = await host.fetchval("SELECT max(synced_at) FROM sync_queue")
        await Purge(pool, AGES).run()
        assert await ids(host, "sync_queue") == []
        assert await purged_through(host) == synced_at

    async def test_nothing_goes_unless_purged_through_moves_with_it(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """One transaction: where the mark cannot be written the rows stay."""
        await add_event(host, await add_user(host), days=20, delivered=9)
        await host.execute(
            """
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                AS $$ BEGIN RAISE 'no' USING ERRCODE = '0A000'; END $$;
            CREATE TRIGGER refuse BEFORE UPDATE ON realtime_retention
                FOR EACH ROW EXECUTE FUNCTION refuse();
            """
        )

        with pytest.raises(asyncpg.FeatureNotSupportedError):
            await Purge(pool, AGES).run()
        assert len(await ids(host)) == 1

        await host.execute("DROP TRIGGER refuse ON realtime_retention")
        await Purge(pool, AGES).run()
        assert await ids(host) == []

    async def test_sync_rows_are_kept_for_a_week_from_their_sync(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """As events are."""
        user = await add_user(host)
        await add_sync_row(host, user, days=20, synced=8)
        kept = [
            await add_sync_row(host, user, days=20, synced=6),
            await add_sync_row(host, user, days=20),
        ]

        await Purge(pool, AGES).run()

        assert await ids(host, "sync_queue") == kept

    async def test_commands_go_after_a_month_but_not_while_they_keep_rows_from_being_delivered(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """The deletion of a user who may have rows yet stays, and one of a user for whom some were written since.

        So does what voids the most tokens of a user: nobody knows for how long those would be taken.
        """
        await host.execute(
            "INSERT INTO realtime_commands (kind, user_id, created_at, detail)"
            " SELECT kind, user_id, now() - make_interval(days => days), detail::jsonb"
            " FROM (VALUES ('disconnect', 'a', 31, '{\"revoked_before\": 1}'),"
            " ('user_deleted', 'erased', 31, '{\"erased\": true}'),"
            " ('user_deleted', 'visited', 31, '{\"visited_in\": \"3\"}'), ('user_deleted', 'new', 31, NULL),"
            " ('user_deleted', 'written for', 31, '{\"erased\": true}'),"
            " ('user_deleted', 'returned', 31, '{\"erased\": true}'), ('disconnect', 'b', 29, NULL),"
            " ('disconnect', 'c', 31, '{\"revoked_before\": 2}'), ('disconnect', 'c', 31, '{\"revoked_before\": 1}'),"
            " ('disconnect', 'c', 31, '{\"revoked_before\": 3}'), ('disconnect', 'c', 31, '{\"revoked_before\": 2}'))"
            " AS old (kind, user_id, days, detail)"
        )
        await add_user(host, "returned")
        for user in ("written for", "returned"):
            await add_event(host, user, days=0)

        await Purge(pool, AGES).run()

        rest = await host.fetch("SELECT user_id FROM realtime_commands ORDER BY id")
        assert [row["user_id"] for row in rest] == ["a", "visited", "new", "written for", "b", "c", "c"]

    async def test_rows_that_somebody_holds_are_passed_over_and_go_the_next_time(
        self, host: asyncpg.Connection, database: Database, pool: Pool
    ) -> None:
        """A job never waits for a lock, neither to expire nor to purge nor to forget."""
        user = await add_user(host)
        held = [await add_event(host, user, days=20, delivered=9), await add_event(host, user, days=31)]
        await add_event(host, user, days=20, delivered=9)
        device, _ = await add_device(host, user, days=91)
        holder = await database.connect()
        jobs = Expire(pool, AGES), Purge(pool, AGES), ForgetDevices(pool, AGES)
        async with holder.transaction():
            await holder.execute("SELECT FROM realtime_events WHERE id = ANY($1) FOR UPDATE", held)
            await holder.execute("SELECT FROM users_devices FOR UPDATE")
            async with asyncio.timeout(10):
                for job in jobs:
                    await job.run()
            assert await ids(host) == held
            assert await letters(host) == []
            assert await ids(host, "users_devices") == [device]

        for job in jobs:
            await job.run()
        assert await ids(host) == held[1:]
        assert len(await letters(host)) == 1
        assert await ids(host, "users_devices") == []


class TestTurns:
    """Several processes on one database."""

    async def test_one_process_at_a_time_and_the_others_do_not_wait(
        self, host: asyncpg.Connection, database: Database, pool: Pool
    ) -> None:
        """While another process has the turn a job ends at once; afterwards it does its work."""
        user = await add_user(host)
        await add_event(host, user, days=31)
        await add_event(host, user, days=31, delivered=9)
        await add_device(host, user, days=91)
        jobs = Expire(pool, AGES), Purge(pool, AGES), ForgetDevices(pool, AGES)
        other = await database.connect()
        async with other.transaction():
            for one in (Turn.EXPIRE, Turn.PURGE, Turn.FORGET):
                assert await turn.take(other, one)
            async with asyncio.timeout(10):
                for job in jobs:
                    await job.run()
            assert len(await ids(host)) == 2
            assert len(await ids(host, "users_devices")) == 1

        for job in jobs:
            await job.run()
        assert len(await ids(host)) == 1
        assert len(await letters(host)) == 1
        assert await ids(host, "users_devices") == []

    @pytest.mark.every_major
    async def test_processes_that_work_at_once_do_each_row_once(
        self, host: asyncpg.Connection, new_pool: Callable[[], Pool]
    ) -> None:
        """Four processes expire and purge thousands of rows: as many as there are, without one lock awaited."""
        await add_many_events(host, 6000, columns=", created_at", values=", now() - interval '31 days'")
        await host.execute(
            "UPDATE realtime_events SET delivered = true, delivered_at = created_at WHERE id % 2 = 0"
        )
        pools = [new_pool() for _ in range(4)]
        done = {"expired": 0, "purged": 0}

        async def work(pool: Pool) -> None:
            for word, sweep, age in (
                ("expired", retention.EXPIRE_EVENTS, AGES.undelivered),
                ("purged", retention.PURGE_EVENTS, AGES.delivered),
            ):
                after_id: int | None = 0
                while after_id is not None:
                    async with pool.driver() as connection:
                        await connection.execute("SET lock_timeout = '200ms'")
                        batch = await sweep.batch(connection, after_id, age, examined=200, changed=50)
                    if batch is not None:
                        done[word] += batch.changed
                        after_id = batch.after_id
                    await asyncio.sleep(0)

        async with asyncio.timeout(60):
            await asyncio.gather(*(work(pool) for pool in pools))

        assert done == {"expired": 3000, "purged": 3000}
        assert len(await letters(host)) == 3000
        assert len(await ids(host)) == 3000

    async def test_a_sweep_needs_several_batches_and_ends_where_rows_are_young(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """Batches change and look at no more rows than they may, and young rows are not walked through."""
        await add_many_events(host, 250, columns=", created_at", values=", now() - interval '31 days'")
        await add_many_events(host, 1000)
        batches = []
        after_id: int | None = 0
        async with pool.driver() as connection:
            while after_id is not None:
                batch = await retention.EXPIRE_EVENTS.batch(
                    connection, after_id, AGES.undelivered, examined=150, changed=100
                )
                assert batch is not None
                batches.append(batch.changed)
                after_id = batch.after_id

        assert batches == [100, 100, 50, 0]


class TestDevices:
    """Forgotten when nobody saw them for a quarter of a year."""

    async def test_devices_not_seen_for_long_are_forgotten(
        self, host: asyncpg.Connection, pool: Pool
    ) -> None:
        """In batches, each with a command that closes what it may still have open; others stay."""
        user = await add_user(host)
        gone = sorted([(await add_device(host, user, days=91))[0] for _ in range(5)])
        kept, _ = await add_device(host, user, days=89)

        await ForgetDevices(pool, AGES, batch=2, pause=0).run()

        assert await ids(host, "users_devices") == [kept]
        removed = await host.fetch(
            "SELECT device_id FROM realtime_commands WHERE kind = 'device_removed' ORDER BY 1"
        )
        assert [row[0] for row in removed] == gone

    async def test_a_device_that_is_connected_is_kept_however_quiet_its_user_is(
        self, host: asyncpg.Connection, start_service: StartService
    ) -> None:
        """It is noted as seen from time to time; one that is away is not."""
        service = await start_service()
        user = await add_user(host)
        here, token = await add_device(host, user)
        await add_device(host, user)
        await connect_live(service, user, device_token=token)
        await host.execute("UPDATE users_devices SET last_active = now() - interval '91 days'")

        await DevicesSeen(service.database, service.hub).run()
        await ForgetDevices(service.database, AGES).run()

        assert await ids(host, "users_devices") == [here]
        before = await host.fetchval("SELECT xmin::text FROM users_devices")
        await DevicesSeen(service.database, service.hub).run()
        assert await host.fetchval("SELECT xmin::text FROM users_devices") == before


async def test_the_running_service_does_all_of_it_with_its_settings(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """Each knob reaches its job: rows of half the usual age go when the settings are a third."""
    user = await add_user(host)
    await add_event(host, user, days=4, delivered=3.5)
    await add_event(host, user, days=15)
    await add_sync_row(host, user, days=4, synced=3.5)
    await add_sync_row(host, user, days=15)
    await add_letter(host, 1, days=45)
    await add_device(host, user, days=45)
    service = await start_service(
        housekeeping_interval=0.2,
        retention_days=2.3,
        synced_days=2.3,
        undelivered_days=10,
        unsynced_days=10,
        dead_letter_days=30,
        device_days=30,
    )

    async def each_ran_twice() -> bool:
        names = "expire", "purge", "forget devices"
        return all(service.scheduler.outcomes[name].runs >= 2 for name in names)

    await eventually(each_ran_twice)

    assert await host.fetchval("SELECT array_agg(settled_as::text) FROM realtime_events") == ["expired"]
    assert await ids(host, "sync_queue") == []
    assert 1 not in [row["event_id"] for row in await letters(host)]
    assert len(await letters(host)) == 2
    assert await ids(host, "users_devices") == []


async def purged_through(host: asyncpg.Connection) -> object:
    """Up to which delivery rows were removed; None before the first."""
    return await host.fetchval("SELECT nullif(purged_through, '-infinity') FROM realtime_retention")

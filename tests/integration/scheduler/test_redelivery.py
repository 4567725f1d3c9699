"""Stale rows are sent again to those who are here, each attempt once, and never beside the first."""

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import Any

import asyncpg
import pytest

from app.bootstrap.service import Service
from app.outbox.receipts import Receipts
from app.scheduler.redelivery import Redelivery
from app.scheduler.refused import Refused
from app.store.database import Database as Pool
from app.store.stale import EVENTS, SYNC_ROWS, Patience, StaleRows
from tests.integration.scheduler.clients import connect, connect_live, eventually, is_live
from tests.integration.scheduler.conftest import StartService
from tests.integration.scheduler.rows import add_device, add_letter, add_redelivery
from tests.support.host import add_user, delete_user, log_mood, log_moods, queue_sync, row_keys

TABLES = {EVENTS.noun: ("realtime_events", "delivered"), SYNC_ROWS.noun: ("sync_queue", "synced")}


def redelivery(service: Service, rows: StaleRows = EVENTS, **other: Any) -> Redelivery:
    """The job as the service has it."""
    receipts = other.get("receipts", service.receipts)
    return Redelivery(rows, service.database, other.get("hub", service.hub), receipts, Patience(30))


async def age(host: asyncpg.Connection, rows: StaleRows, seconds: float = 60) -> None:
    """Let every pending row have been written so long ago."""
    table, flag = TABLES[rows.noun]
    await host.execute(
        f"UPDATE {table} SET created_at = now() - make_interval(secs => $1) WHERE NOT {flag}", seconds
    )


async def lose_receipts(host: asyncpg.Connection, rows: StaleRows = EVENTS, **columns: str) -> None:
    """Make rows as a crash leaves them that took their receipts: old, and not known to have arrived."""
    table, flag = TABLES[rows.noun]
    await arrived(host, rows)
    sets = "".join(f", {name} = {value}" for name, value in columns.items())
    await host.execute(
        f"UPDATE {table} SET {flag} = false, {flag}_at = NULL, created_at = now() - interval '1 minute'{sets}"
    )


async def arrived(host: asyncpg.Connection, rows: StaleRows = EVENTS) -> None:
    """Wait until every row is known to have arrived."""
    table, flag = TABLES[rows.noun]

    async def nothing_pending() -> bool:
        return not await host.fetchval(f"SELECT count(*) FROM {table} WHERE NOT {flag}")

    await eventually(nothing_pending)


async def attempts(host: asyncpg.Connection, rows: StaleRows = EVENTS) -> list[int]:
    """How often each row was sent again, in id order."""
    table, _ = TABLES[rows.noun]
    return [row[0] for row in await host.fetch(f"SELECT attempts FROM {table} ORDER BY id")]


@pytest.mark.every_major
async def test_a_stale_row_is_sent_again_once_to_every_connection_of_its_user(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """A row whose receipt was lost comes again as it was; a younger one and another user's do not."""
    service = await start_service()
    user, away = await add_user(host), await add_user(host)
    one, other = await connect_live(service, user), await connect_live(service, user)
    await log_mood(host, user)
    await log_mood(host, away)
    await one.until(lambda c: len(c.ids) == 1)
    await other.until(lambda c: len(c.ids) == 1)
    await host.execute("UPDATE realtime_events SET delivered = true WHERE user_id = $1", away)
    await lose_receipts(host)
    await log_mood(host, user)
    await one.until(lambda c: len(c.ids) == 2)

    await redelivery(service).run()
    await arrived_for(host, user)
    await redelivery(service).run()

    assert one.ids == other.ids
    assert len(one.ids) == 3
    assert one.messages[-1] | {"timestamp": ""} == one.messages[1] | {"timestamp": ""}
    assert await attempts(host) == [1, 0, 0]


async def confirmed(service: Service, user: str) -> None:
    """Wait until nothing is on its way on any connection of a user, and all receipts are written."""

    async def nothing_under_way() -> bool:
        in_flight = any(one.session.in_flight for one in service.hub.of(user))
        return not in_flight and not service.receipts.unwritten

    await eventually(nothing_under_way)


async def arrived_for(host: asyncpg.Connection, user_id: str) -> None:
    """Wait until every event of one user is known to have arrived."""

    async def nothing_pending() -> bool:
        return not await host.fetchval(
            "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND NOT delivered", user_id
        )

    await eventually(nothing_pending)


async def test_it_happens_by_itself(host: asyncpg.Connection, start_service: StartService) -> None:
    """The running service finds the row, sends it again and learns that it arrived."""
    service = await start_service(stale_interval=0.1)
    user = await add_user(host)
    client = await connect_live(service, user)
    await log_mood(host, user)
    await client.until(lambda c: len(c.ids) == 1)
    await lose_receipts(host)

    await client.until(lambda c: len(c.ids) == 2)
    await arrived(host)

    assert await attempts(host) == [1]


async def test_the_time_to_the_next_attempt_doubles_up_to_an_hour(
    host: asyncpg.Connection, pool: Pool
) -> None:
    """Thirty seconds, a minute, two; and never more than the bound, however often it was tried."""
    user = await add_user(host)
    await log_moods(host, [user], 4)
    ids = [row[0] for row in await host.fetch("SELECT id FROM realtime_events ORDER BY id")]
    for row_id, tried in zip(ids, (0, 1, 2, 32767), strict=True):
        await host.execute("UPDATE realtime_events SET attempts = $2 WHERE id = $1", row_id, tried)

    async with pool.driver() as connection:
        claimed = await EVENTS.claim(connection, ids, Patience(30))

    waits = await host.fetch(
        "SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM realtime_events ORDER BY id"
    )
    assert [row[1] for row in claimed] == ids
    for wait, expected in zip(waits, (30, 60, 120, 3600), strict=True):
        assert wait[0] == pytest.approx(expected, rel=0.06, abs=2)
    assert await attempts(host) == [1, 2, 3, 32767]


async def test_a_row_is_not_claimed_before_its_time(host: asyncpg.Connection, pool: Pool) -> None:
    """After an attempt the row waits; when its time has come it is a candidate and can be claimed."""
    user = await add_user(host)
    row_id = await stale_mood(host, user)
    async with pool.driver() as connection:
        assert await EVENTS.claim(connection, [row_id], Patience())

        assert await EVENTS.candidates(connection, [user], Patience()) == []
        assert await EVENTS.claim(connection, [row_id], Patience()) == []

        await host.execute("UPDATE realtime_events SET next_attempt_at = now() - interval '1 second'")
        assert [found.id for found in await EVENTS.candidates(connection, [user], Patience())] == [row_id]
        assert await EVENTS.claim(connection, [row_id], Patience())


async def stale_mood(host: asyncpg.Connection, user_id: str) -> int:
    """Log a mood a minute ago; return the id of its event."""
    await log_mood(host, user_id)
    await age(host, EVENTS)
    return await host.fetchval("SELECT max(id) FROM realtime_events")


@pytest.mark.every_major
async def test_what_was_redriven_is_stale_as_long_after_that(host: asyncpg.Connection, pool: Pool) -> None:
    """The tail sends it as if it were new; only when it does not arrive is it sent again."""
    user = await add_user(host)
    row_id = await stale_mood(host, user)
    async with pool.driver() as connection:
        await host.execute("UPDATE realtime_events SET redriven_at = now() - interval '29 seconds'")
        assert await EVENTS.candidates(connection, [user], Patience(30)) == []

        await host.execute("UPDATE realtime_events SET redriven_at = now() - interval '31 seconds'")
        found = await EVENTS.candidates(connection, [user], Patience(30))

    assert [row.id for row in found] == [row_id]


@pytest.mark.every_major
@pytest.mark.parametrize("rows", [EVENTS, SYNC_ROWS], ids=lambda rows: rows.noun)
async def test_what_a_device_could_not_process_is_not_sent_again_out_of_turn(
    host: asyncpg.Connection, pool: Pool, rows: StaleRows
) -> None:
    """Neither what waits for its time nor what was given up; what was only counted is."""
    user = await add_user(host)
    device_id, _ = await add_device(host, user)
    write = log_mood if rows is EVENTS else queue_sync
    for _ in range(4):
        await write(host, user)
    await age(host, rows)
    table, _ = TABLES[rows.noun]
    ids = [row[0] for row in await host.fetch(f"SELECT id FROM {table} ORDER BY id")]
    async with pool.driver() as connection:
        assert [one.id for one in await rows.candidates(connection, [user], Patience())] == ids
        await add_redelivery(host, ids[0], user, device_id=device_id)
        await add_letter(host, ids[1], device_id=device_id)
        await add_redelivery(host, ids[2], user, device_id=device_id, pending=False)

        found = await rows.candidates(connection, [user], Patience())
        claimed = await rows.claim(connection, ids, Patience())

    assert [one.id for one in found] == [row[1] for row in claimed] == ids[2:]


@pytest.mark.parametrize(
    "sets", ["delivered = true", "settled_as = 'expired'", "next_attempt_at = now() + interval '1 hour'"]
)
async def test_what_was_settled_since_it_was_found_is_not_claimed(
    host: asyncpg.Connection, pool: Pool, sets: str
) -> None:
    """A claim looks again: a receipt, an end or another process may have come first."""
    user = await add_user(host)
    row_id = await stale_mood(host, user)
    async with pool.driver() as connection:
        found = await EVENTS.candidates(connection, [user], Patience())
        await host.execute(f"UPDATE realtime_events SET {sets}")

        assert [row.id for row in found] == [row_id]
        assert await EVENTS.claim(connection, [row_id], Patience()) == []
    assert await attempts(host) == [0]


async def test_of_two_processes_one_gets_a_row_and_neither_waits(
    host: asyncpg.Connection, new_pool: Callable[[], Pool]
) -> None:
    """Claims at the same moment share the rows; a row that somebody holds is left out."""
    users = [await add_user(host) for _ in range(3)]
    await log_moods(host, users, 300)
    await age(host, EVENTS)
    ids = [row[0] for row in await host.fetch("SELECT id FROM realtime_events ORDER BY id")]

    async def claim(pool: Pool) -> list[int]:
        async with pool.driver() as connection:
            await connection.execute("SET lock_timeout = '100ms'")
            return [row[1] for row in await EVENTS.claim(connection, ids, Patience())]

    pools = [new_pool() for _ in range(4)]
    async with host.transaction():
        await host.execute("SELECT FROM realtime_events WHERE id = $1 FOR UPDATE", ids[0])
        taken = await asyncio.gather(*(claim(pool) for pool in pools))

    assert sorted(chain.from_iterable(taken)) == ids[1:]
    assert await attempts(host) == [0] + [1] * 299


async def test_what_is_in_flight_is_not_sent_beside_itself(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """A client that has not confirmed yet gets nothing twice, and no attempt is counted."""
    service = await start_service()
    user = await add_user(host)
    client = await connect_live(service, user)
    client.mute = True
    async with host.transaction():
        await log_mood(host, user)
        await age(host, EVENTS)
    await client.until(lambda c: len(c.ids) == 1 and c.asked == 1)

    await redelivery(service).run()

    assert await attempts(host) == [0]
    client.mute = False
    client.answer()
    await lose_receipts(host)
    await redelivery(service).run()
    await arrived(host)
    assert len(client.ids) == 2
    assert await attempts(host) == [1]


async def test_what_has_arrived_but_is_not_written_down_is_not_sent_again(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """While receipts wait for the database the table is behind; they know better."""
    service = await start_service()
    user = await add_user(host)
    client = await connect_live(service, user)
    await log_mood(host, user)
    await client.until(lambda c: len(c.ids) == 1)
    await lose_receipts(host)
    unwritten = Receipts(service.database)
    unwritten.add(user, await row_keys(host, "SELECT id, created_at FROM realtime_events"), ())

    await redelivery(service, receipts=unwritten).run()

    assert await attempts(host) == [0]
    await redelivery(service).run()
    assert await attempts(host) == [1]


async def test_a_user_who_catches_up_gets_rows_from_the_read_only(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """What waits behind a slow client's window is not claimed; once the client is live, it can be."""
    service = await start_service()
    user = await add_user(host)
    await log_moods(host, [user], 100)
    await age(host, EVENTS)
    slow = await connect(service, user, mute=True)
    await slow.until(lambda c: len(c.ids) == 32)

    await redelivery(service).run()

    assert await attempts(host) == [0] * 100
    assert len(slow.ids) == 32
    slow.mute = False
    slow.answer()
    await arrived(host)
    assert slow.ids == sorted(set(slow.ids))
    assert len(slow.ids) == 100
    await eventually(lambda: is_live(service, user))
    await lose_receipts(host)
    await redelivery(service).run()
    assert await attempts(host) == [1] * 100


async def test_a_live_connection_does_not_wait_for_one_that_catches_up(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """What the live one confirmed and the table forgot goes to it again; the other still has it before it."""
    service = await start_service()
    user = await add_user(host)
    await log_moods(host, [user], 100)
    slow = await connect(service, user, mute=True)
    await slow.until(lambda c: len(c.ids) == 32)
    quick = await connect(service, user)
    await quick.until(lambda c: len(c.ids) == 100)
    await lose_receipts(host)

    await redelivery(service).run()

    assert await attempts(host) == [1] * 100
    assert len(quick.ids) == 200
    assert len(slow.ids) == 32


async def test_a_row_becomes_stale_with_age(host: asyncpg.Connection, pool: Pool) -> None:
    """Not before the time that is set, which the sending itself may take."""
    user = await add_user(host)
    await log_moods(host, [user], 3)
    async with pool.driver() as connection:
        await age(host, EVENTS, 20)
        assert await EVENTS.candidates(connection, [user], Patience(30)) == []
        await age(host, EVENTS, 40)
        assert len(await EVENTS.candidates(connection, [user], Patience(30))) == 3


async def test_rows_of_users_who_are_away_are_never_touched(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """They wait without an attempt, however old; when their user comes they are there at once."""
    service = await start_service()
    user, away = await add_user(host), await add_user(host)
    await connect_live(service, user)
    await log_moods(host, [away], 10)
    await age(host, EVENTS)
    before = await host.fetch("SELECT ctid, xmin::text FROM realtime_events ORDER BY id")

    await redelivery(service).run()

    assert await host.fetch("SELECT ctid, xmin::text FROM realtime_events ORDER BY id") == before
    late = await connect(service, away)
    await late.until(lambda c: len(c.ids) == 10)


async def test_what_the_tail_has_not_routed_yet_comes_once(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """A transaction open for a minute commits rows that look stale: they are the tail's."""
    service = await start_service()
    user = await add_user(host)
    client = await connect_live(service, user)
    tail = next(part for part in service._sources if part.name == "tail")
    await tail.stop()
    await log_mood(host, user)
    await age(host, EVENTS)

    await redelivery(service).run()

    assert client.ids == []
    assert await attempts(host) == [0]
    tail.start()
    await client.until(lambda c: len(c.ids) == 1)
    await arrived(host)
    assert len(client.ids) == 1


async def test_nothing_is_claimed_by_the_snapshots_of_another_incarnation(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """After a crash an old snapshot may call new rows routed; until the tail has read, nothing is sent."""
    service = await start_service()
    user = await add_user(host)
    client = await connect_live(service, user)
    await log_mood(host, user)
    await client.until(lambda c: len(c.ids) == 1)
    await lose_receipts(host)
    hub = service.hub
    assert hub.routed is not None
    tail = next(part for part in service._sources if part.name == "tail")
    await tail.stop()
    routed = hub.routed

    hub.routed = routed._replace(incarnation=routed.incarnation._replace(life="00" * 8))
    await redelivery(service).run()
    assert await attempts(host) == [0]

    hub.routed = routed
    await redelivery(service).run()
    assert await attempts(host) == [1]


async def test_nothing_of_a_deleted_user_is_claimed(host: asyncpg.Connection, pool: Pool) -> None:
    """Rows that are not erased yet are left alone from the deletion on; another user's are not."""
    user, other = await add_user(host), await add_user(host)
    mine, theirs = await stale_mood(host, user), await stale_mood(host, other)
    await delete_user(host, user)

    async with pool.driver() as connection:
        claimed = await EVENTS.claim(connection, [mine, theirs], Patience())

    assert [row[1] for row in claimed] == [theirs]


async def test_a_round_adds_a_bounded_number_of_bytes_to_what_waits_for_a_user(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """Of a hundred large rows four go at once, and others when those are done; another user has a share."""
    service = await start_service()
    user, other = await add_user(host), await add_user(host)
    clients = [await connect_live(service, user), await connect_live(service, other)]
    for owner in [user] * 20 + [other]:
        await host.fetchval(
            "SELECT realtime_publish($1, 'large', jsonb_build_object('text', repeat('x', 60000)))", owner
        )
    await clients[0].until(lambda c: len(c.ids) == 20)
    await clients[1].until(lambda c: len(c.ids) == 1)
    await lose_receipts(host)
    sent = [len(client.ids) for client in clients]

    await redelivery(service).run()

    assert [len(client.ids) for client in clients] == [sent[0] + 4, sent[1] + 1]
    await redelivery(service).run()
    assert sum(await attempts(host)) == 9


@pytest.mark.every_major
async def test_sync_rows_are_drained_to_mobile_devices_but_the_one_they_come_from(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """A row uploaded by one phone goes to the other, one of the host's to both, none to a browser."""
    service = await start_service()
    user = await add_user(host)
    (origin, first), (_, second), (_, web) = [
        await add_device(host, user, platform) for platform in ("ios", "android", "web")
    ]
    uploader, phone, browser = [
        await connect_live(service, user, device_token=token) for token in (first, second, web)
    ]
    uploaded, of_host = await upload(host, user, origin), await queue_sync(host, user)
    await uploader.until(lambda c: c.ids == [of_host])
    await phone.until(lambda c: c.ids == [uploaded, of_host])
    await confirmed(service, user)
    await lose_receipts(host, SYNC_ROWS)

    await redelivery(service, SYNC_ROWS).run()
    await uploader.until(lambda c: c.ids == [of_host] * 2)
    await phone.until(lambda c: c.ids == [uploaded, of_host] * 2)
    await arrived(host, SYNC_ROWS)

    assert (len(uploader.ids), len(phone.ids)) == (2, 4)
    assert browser.ids == []
    assert await attempts(host, SYNC_ROWS) == [1, 1]


async def upload(host: asyncpg.Connection, user_id: str, device_id: int) -> int:
    """Queue a sync row as a device of the user uploads it; return its id."""
    return await host.fetchval(
        "INSERT INTO sync_queue (user_id, action_type, payload, device_id)"
        " VALUES ($1, 'refresh', '{}', $2) RETURNING id",
        user_id,
        device_id,
    )


async def test_a_sync_row_that_nobody_here_takes_is_not_claimed(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """With only its uploader and a browser connected it waits without an attempt."""
    service = await start_service()
    user = await add_user(host)
    (origin, token), (_, web) = [await add_device(host, user, platform) for platform in ("ios", "web")]
    for one in (token, web):
        await connect_live(service, user, device_token=one)
    await upload(host, user, origin)
    await age(host, SYNC_ROWS)

    await redelivery(service, SYNC_ROWS).run()
    assert await attempts(host, SYNC_ROWS) == [0]

    await host.execute("UPDATE sync_queue SET device_id = NULL")
    await redelivery(service, SYNC_ROWS).run()
    assert await attempts(host, SYNC_ROWS) == [1]


async def test_what_was_refused_waits_in_the_table_for_who_takes_nothing(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """A hundred large rows, due again and again, take no more memory than a few of them."""
    service = await start_service()
    user = await add_user(host)
    for _ in range(100):
        event = await host.fetchval(
            "SELECT realtime_publish($1, 'large', jsonb_build_object('text', repeat('x', 60000)))", user
        )
        await add_redelivery(host, event, user)
    await connect(service, user, mute=True)
    await eventually(lambda: is_live(service, user))
    (session,) = (one.session for one in service.hub.of(user))

    for _ in range(20):
        await Refused(service.database, service.hub).run()
        await host.execute("UPDATE realtime_redeliveries SET next_attempt_at = now()")

    assert session.in_flight
    assert session.in_flight + session.waiting < 30

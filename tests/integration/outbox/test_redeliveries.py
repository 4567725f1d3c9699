"""What is kept of rows that readers did not acknowledge: claimed once, counted together, found by index."""

import asyncio
from itertools import chain

import asyncpg
import pytest

from app.store import redeliveries
from app.store.redeliveries import Persistence, Tried
from tests.integration.outbox.test_plans import Cost, Meter
from tests.support.host import add_user, log_moods
from tests.support.postgres import Database

READERS = 40
EACH = 10
KEPT = 60_000
COST = 200
"""Pages of 8 KiB that a statement may touch for a handful of rows; walking the table takes hundreds."""


async def refused(host: asyncpg.Connection, users: list[str], each: int = EACH) -> list[int]:
    """Let each user have events that it refused and that are due; return their ids."""
    await log_moods(host, users, each * len(users))
    rows = await host.fetch(
        "INSERT INTO realtime_redeliveries (event_id, user_id, nacks, next_attempt_at)"
        " SELECT id, user_id, 1, now() FROM realtime_events WHERE user_id = ANY($1) RETURNING event_id",
        users,
    )
    return sorted(row["event_id"] for row in rows)


@pytest.mark.every_major
async def test_processes_that_look_at_once_claim_each_row_once(database: Database) -> None:
    """In batches, each in id order; nobody waits for another, and what is claimed stays away."""
    host = await database.connect()
    users = [await add_user(host) for _ in range(READERS)]
    due = await refused(host, users)
    processes = [await database.connect() for _ in range(4)]

    async def claim(connection: asyncpg.Connection) -> list[int]:
        claimed = []
        while rows := await redeliveries.claim_due(
            connection, [(user, None) for user in users], limit=17, claimed_for=60
        ):
            batch = [row["id"] for row in rows]
            assert batch == sorted(batch)
            assert len(batch) <= 17
            claimed += batch
        return claimed

    claimed = await asyncio.gather(*map(claim, processes))

    # A batch passes over what another holds; whoever looks next finds what was passed over.
    claimed.append(await claim(host))
    assert sorted(chain.from_iterable(claimed)) == due
    assert not await redeliveries.any_due(host)


@pytest.mark.every_major
async def test_a_row_is_claimed_for_its_reader_only(database: Database) -> None:
    """Of a device by that device, without one by connections without one, and while nobody has it."""
    host = await database.connect()
    user = await add_user(host)
    ids = [
        await host.fetchval(
            "INSERT INTO users_devices (user_id, device_token, platform) VALUES ($1, $2, 'ios') RETURNING id",
            user,
            f"{number} {user}",
        )
        for number in range(2)
    ]
    await log_moods(host, [user], 1)
    event = await host.fetchval("SELECT id FROM realtime_events")
    for device in (None, ids[0]):
        await redeliveries.record(
            host, [Tried((event, 0), user, device, nacks=1, detail="no")], Persistence(first_pause=0)
        )

    async def claimed(*devices: int | None) -> list[int | None]:
        readers = [(user, device) for device in devices]
        rows = await redeliveries.claim_due(host, readers, limit=10, claimed_for=0)
        return sorted((row["reader"] for row in rows), key=lambda reader: reader or 0)

    assert await claimed(ids[1]) == []
    assert await claimed(ids[0]) == [ids[0]]
    assert await claimed(None) == [None]
    assert await claimed(*ids, None) == [None, ids[0]]
    await host.execute("UPDATE realtime_events SET delivered = true")
    assert await claimed(*ids, None) == [ids[0]], "somebody without a device has it"


@pytest.mark.every_major
async def test_however_often_a_row_was_in_the_way_it_is_counted_and_given_up(
    host: asyncpg.Connection,
) -> None:
    """A count that cannot be written would keep every receipt of the process from being written."""
    user = await add_user(host)
    await log_moods(host, [user], 1)
    event = await host.fetchval("SELECT id FROM realtime_events")
    patient = Persistence(nacks=32_767)

    for often in (20_000, 20_000, 40_000):
        tried = [Tried((event, 0), user, None, attempts=often, nacks=10_000)]
        await redeliveries.record(host, tried, patient)
    kept = await host.fetchrow("SELECT attempts, nacks FROM realtime_redeliveries")
    await redeliveries.record(host, tried, Persistence())

    assert tuple(kept) == (32_767, 30_000)
    assert await host.fetchval("SELECT attempts FROM realtime_dead_letters") == 2 * 32_767


@pytest.mark.every_major
async def test_no_reader_has_the_others_wait_nor_very_much_sent_at_once(database: Database) -> None:
    """One has refused many large rows: it gets some of them, and others get theirs beside it."""
    host = await database.connect()
    greedy, *modest = [await add_user(host) for _ in range(5)]
    for user, count in ((greedy, 30), *((user, 1) for user in modest)):
        await host.execute(
            "SELECT realtime_publish($1, 'large', jsonb_build_object('text', repeat('x', 60000)))"
            " FROM generate_series(1, $2::int)",
            user,
            count,
        )
    await host.execute(
        "INSERT INTO realtime_redeliveries (event_id, user_id, nacks, next_attempt_at)"
        " SELECT id, user_id, 1, now() FROM realtime_events"
    )
    readers = [(user, None) for user in (greedy, *modest)]

    rows = await redeliveries.claim_due(host, readers, limit=200, claimed_for=60)
    assert [row["user_id"] for row in rows] == [greedy] * 5 + modest

    await host.execute("UPDATE realtime_redeliveries SET next_attempt_at = now()")
    rows = await redeliveries.claim_due(host, readers, limit=5, claimed_for=60)
    assert {row["user_id"] for row in rows} == {greedy, *modest}


@pytest.mark.every_major
async def test_counts_add_up_from_many_processes(database: Database) -> None:
    """Refusals and ended connections of the same rows, in any order, without a deadlock; then the letters."""
    host = await database.connect()
    user = await add_user(host)
    await log_moods(host, [user], 20)
    events = [row["id"] for row in await host.fetch("SELECT id FROM realtime_events")]
    processes = [await database.connect() for _ in range(4)]
    enough = Persistence(nacks=9, attempts=100)

    async def record(connection: asyncpg.Connection, number: int) -> None:
        for turn in range(2):
            order = events if (number + turn) % 2 else events[::-1]
            await redeliveries.record(
                connection, [Tried((event, 0), user, None, nacks=1, attempts=turn) for event in order], enough
            )

    await asyncio.gather(*(record(one, number) for number, one in enumerate(processes)))
    counted = await host.fetch(
        "SELECT event_id, nacks, attempts FROM realtime_redeliveries ORDER BY event_id"
    )
    assert [tuple(row) for row in counted] == [(event, 8, 4) for event in sorted(events)]

    await redeliveries.record(host, [Tried((event, 0), user, None, nacks=1) for event in events], enough)

    assert await host.fetchval("SELECT count(*) FROM realtime_redeliveries") == 0
    letters = await host.fetch("SELECT reason, attempts FROM realtime_dead_letters")
    assert {tuple(row) for row in letters} == {("nacked", 13)}
    assert len(letters) == len(events)
    assert await host.fetchval("SELECT bool_and(settled_as = 'dead') FROM realtime_events")


async def test_its_statements_find_their_rows_by_index(database: Database) -> None:
    """Where very many rows are kept, of which nearly none are due, whoever asks pays for his own."""
    host = await database.connect()
    await host.execute(
        f"""
        INSERT INTO realtime_redeliveries (event_id, user_id, device_id, nacks, next_attempt_at)
            SELECT n, 'user-' || n % 20000, n % 20000, 1,
                   CASE WHEN n % 2 = 0 THEN now() + interval '1 hour' END
            FROM generate_series(1, {KEPT}) AS n;
        UPDATE realtime_redeliveries SET next_attempt_at = now() - interval '1 minute'
            WHERE event_id IN (77, 20077);
        """
    )
    await host.execute("VACUUM ANALYZE")
    meter = Meter(host)

    due = await meter.explain(redeliveries._ANY_DUE)
    claim = await meter.explain(redeliveries._CLAIM, ["user-77", "user-78"], [77, 78], 200, 15.0, 1 << 18, [])
    state = await meter.explain(redeliveries._STATE, [77, 20077, 5], 77)
    settle = await meter.explain(redeliveries._SETTLE, [77, 20077, 5], [77, 77, 5])
    give_up = await meter.explain(redeliveries._GIVE_UP, [77, 20077, 5], 5, 8, 3600.0)
    await host.execute("UPDATE realtime_redeliveries SET next_attempt_at = NULL")
    await host.execute("VACUUM ANALYZE")
    nothing_due = await meter.explain(redeliveries._ANY_DUE)

    costs: dict[str, Cost] = {
        "any due": due,
        "any due, nothing is": nothing_due,
        "claim": claim,
        "state": state,
        "settle": settle,
        "give up": give_up,
    }
    for name, cost in costs.items():
        assert cost.buffers < COST, f"{name}: {cost.buffers} pages\n{cost.plan}"

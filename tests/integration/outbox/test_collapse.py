"""Of events that replace each other, who was away gets the newest; who is there gets them all."""

import asyncpg
import pytest

from app.core.flight import Limits
from app.outbox.walk import PageSize
from tests.integration.outbox.conftest import StartRig
from tests.support.host import add_user, log_mood
from tests.support.postgres import Database
from tests.support.service import Rig, until

pytestmark = pytest.mark.every_major


async def tell(host: asyncpg.Connection, key: str | None, state: int, user: str = "u") -> int:
    """Publish a state under a key; return the event's id."""
    return await host.fetchval(
        "SELECT realtime_publish($1, 'presence', jsonb_build_object('state', $2::int), collapse_key => $3)",
        user,
        state,
        key,
    )


async def settled(host: asyncpg.Connection) -> dict[str | None, int]:
    rows = await host.fetch(
        "SELECT CASE WHEN delivered THEN 'delivered' ELSE settled_as END, count(*)"
        " FROM realtime_events GROUP BY 1"
    )
    return dict(rows)


async def test_who_was_away_gets_the_newest_of_each_key(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """And whatever has no key, in order, over many pages; what nobody got is settled, not lost."""
    rig = await start_rig(database.url, page=PageSize(rows=7), limits=Limits(window=4))
    newest = {}
    plain = []
    for state in range(60):
        for key in ("ann", "bob"):
            newest[key] = await tell(host, key, state)
        if state % 10 == 0:
            plain.append(await log_mood(host, "u"))
            plain[-1] = await host.fetchval("SELECT max(id) FROM realtime_events")
    await tell(host, "ann", 1, user="somebody else")
    peer = rig.connect("u")
    await rig.settled(peer)
    assert peer.ids == sorted([*newest.values(), *plain])
    await rig.recorded()
    assert await settled(host) == {"delivered": 8, "collapsed": 118, None: 1}


async def test_live_delivery_is_unchanged(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Who is there gets every state, as it comes."""
    rig = await start_rig(database.url)
    peer = rig.connect("u")
    await rig.settled(peer)
    ids = [await tell(host, "ann", state) for state in range(20)]
    await rig.settled(peer)
    assert peer.ids == ids


async def test_each_device_gets_the_newest_that_it_has_not_seen(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """What another device has had stays delivered."""
    rig = await start_rig(database.url)
    await add_user(host, "u")
    for token in ("phone", "pad"):
        await rig.registry.register("u", token, "ios", None)
    pad = await rig.connect_device("u", "pad")
    await rig.settled(pad)
    ids = [await tell(host, "ann", state) for state in range(10)]
    await rig.settled(pad)
    await rig.recorded()
    phone = await rig.connect_device("u", "phone")
    await rig.settled(phone)
    assert (pad.ids, phone.ids) == (ids, ids[-1:])
    assert await settled(host) == {"delivered": 10}


async def test_a_state_that_commits_late_comes_although_a_newer_one_was_seen(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """What counts is what this reader has not seen."""
    rig: Rig = await start_rig(database.url)
    await add_user(host, "u")
    await rig.registry.register("u", "u", "ios", None)
    late = await database.connect()
    async with late.transaction():
        older = await tell(late, "ann", 1)
        newer = await tell(host, "ann", 2)
        peer = await rig.connect_device("u", "u")
        await rig.settled(peer)
        await rig.recorded()
        peer.leave()
        assert peer.ids == [newer]
    again = await rig.connect_device("u", "u")
    await rig.settled(again)
    assert again.ids == [older]


async def test_a_reader_cut_before_the_newest_gets_it_when_it_resumes(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Its position has passed over the older ones, and not over that."""
    rig = await start_rig(database.url, page=PageSize(rows=3), limits=Limits(window=4))
    await rig.caught_up()
    first = rig.connect("u", position="")
    await rig.settled(first)
    for state in range(8):
        await tell(host, "ann", state)
        await log_mood(host, "u")
    newest = await tell(host, "ann", 9)
    await rig.settled(first)
    cut = rig.connect("u", position=first.control[0]["position"], mute=True)
    await until(lambda: len(cut.received) == 4)
    cut.leave()
    again = rig.connect("u", position=cut.received[-1].body["position"])
    await rig.settled(again)
    moods = [
        row[0]
        for row in await host.fetch("SELECT id FROM realtime_events WHERE collapse_key IS NULL ORDER BY id")
    ]
    assert cut.ids + again.ids == [*moods, newest]

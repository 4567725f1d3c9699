"""Whom a disconnection reaches: connections of older tokens, those that slipped past the door, and no others."""

import asyncio
import time

import asyncpg
import pytest

from app.auth.tickets import Tickets
from app.core.identity import Identity, Unauthenticated
from app.store.database import Database as Pool
from app.store.database import address
from tests.integration.outbox.conftest import StartRig
from tests.support.host import add_user, log_mood
from tests.support.postgres import Database
from tests.support.service import until

pytestmark = pytest.mark.every_major


def issued(user: str, seconds_ago: float) -> Identity:
    now = time.time()
    return Identity(user, now - seconds_ago, now + 3600)


async def test_who_slipped_past_the_door_gets_nothing(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Let in before the commit, known to the hub after the tail had passed: the read of its own sees to it."""
    user = await add_user(host)
    await log_mood(host, user)
    old = issued(user, 10)
    await host.execute("SELECT realtime_disconnect($1)", user)
    rig = await start_rig(database.url)
    await rig.caught_up()

    slipped = rig.connect(user, identity=old)
    newer = rig.connect(user, identity=issued(user, -1))
    nameless = rig.connect(user, identity=Identity(user, None, time.time() + 3600))
    await until(lambda: slipped.close_code is not None and nameless.close_code is not None)
    await rig.settled(newer)

    assert (slipped.close_code, nameless.close_code, newer.close_code) == (4403, 4403, None)
    assert (slipped.ids, nameless.ids, len(newer.ids)) == ([], [], 1)


async def test_a_device_that_slipped_past_what_replaced_or_removed_it_gets_nothing(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """It had its generation, and was known to the hub after the tail had passed what ended it."""
    user = await add_user(host)
    for token in ("replaced", "removed"):
        await host.execute(
            "INSERT INTO users_devices (user_id, device_token, platform) VALUES ($1, $2, 'ios')", user, token
        )
    rig = await start_rig(database.url)
    older = await rig.registry.connect(user, "replaced")
    newest = await rig.registry.connect(user, "replaced")
    gone = await rig.registry.connect(user, "removed")
    await host.execute("DELETE FROM users_devices WHERE device_token = 'removed'")
    await log_mood(host, user)
    await rig.caught_up()

    peers = [rig.connect(user, device=device) for device in (older, newest, gone)]
    await until(lambda: peers[0].close_code is not None and peers[2].close_code is not None)
    await rig.settled(peers[1])

    assert [peer.close_code for peer in peers] == [4409, None, 4403]
    assert [len(peer.ids) for peer in peers] == [0, 1, 0]


async def test_who_came_back_with_a_newer_token_before_the_command_was_heard_stays(
    database: Database, host: asyncpg.Connection, start_rig: StartRig
) -> None:
    """Older ones close, and so does whoever came without any token at all."""
    user = await add_user(host)
    rig = await start_rig(database.url)
    peers = [rig.connect(user, identity=issued(user, ago)) for ago in (10, -10)]
    peers.append(rig.connect(user))
    await rig.settled()

    await host.execute("SELECT realtime_disconnect($1)", user)

    await until(lambda: peers[0].close_code is not None and peers[2].close_code is not None)
    await rig.caught_up()
    assert [peer.close_code for peer in peers] == [4403, None, 4403]


async def test_a_disconnection_locks_nothing(database: Database, host: asyncpg.Connection) -> None:
    """Two transactions that disconnect two users in opposite order wait for nobody (and the host's never fail)."""
    other = await database.connect()
    for connection in (host, other):
        await connection.execute("SET lock_timeout = '1ms'; BEGIN; SET LOCAL realtime.bells = 'off'")
    for connection, user in ((host, "ann"), (other, "bob"), (host, "bob"), (other, "ann")):
        await connection.execute("SELECT realtime_disconnect($1)", user)
    for connection in (host, other):
        await connection.execute("COMMIT")

    assert await host.fetchval("SELECT count(*) FROM realtime_commands WHERE kind = 'disconnect'") == 4


async def test_a_ticket_is_used_once_whoever_asks(database: Database) -> None:
    """Twenty at once, from two pools."""
    pools = [Pool(address(database.url), size=5) for _ in range(2)]
    try:
        ticket = await Tickets(pools[0]).issue(issued("ann", 0))
        tries = [Tickets(pools[n % 2]).use_up(ticket) for n in range(20)]

        results = await asyncio.gather(*tries, return_exceptions=True)

        assert sum(isinstance(one, Identity) for one in results) == 1
        assert sum(isinstance(one, Unauthenticated) for one in results) == 19
    finally:
        for pool in pools:
            await pool.close()

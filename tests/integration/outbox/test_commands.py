"""What the host orders for a user's connections is carried out, and once."""

import asyncio

import asyncpg
import pytest

from tests.conftest import NewCluster, NewDatabase
from tests.integration.outbox.conftest import StartRig
from tests.support.host import log_mood
from tests.support.service import until

pytestmark = pytest.mark.every_major


async def disconnect(host: asyncpg.Connection, user_id: str) -> None:
    await host.execute("INSERT INTO realtime_commands (kind, user_id) VALUES ('disconnect', $1)", user_id)


async def test_a_restart_of_the_database_does_not_repeat_a_command(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """Who came back after being disconnected stays, although the overlap is read again."""
    cluster = private_cluster()
    database = await new_database(cluster)
    rig = await start_rig(database.url)
    host = await database.connect()
    sent_away = rig.connect("u")
    await rig.caught_up()
    await disconnect(host, "u")
    await until(lambda: sent_away.close_code is not None)
    back = rig.connect("u")
    await rig.caught_up()

    await asyncio.to_thread(cluster.stop)
    await asyncio.to_thread(cluster.start)
    await log_mood(await database.connect(), "u", 1)
    await rig.settled()

    assert len(back.ids) == 1
    assert back.close_code is None

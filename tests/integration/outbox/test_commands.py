"""What the host orders for a user's connections is carried out, and once."""

import asyncio

import asyncpg
import pytest

from app.core.close_codes import CloseCode
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


async def test_who_came_after_a_command_that_a_restart_repeats_is_asked_to_come_again(
    private_cluster: NewCluster, new_database: NewDatabase, start_rig: StartRig
) -> None:
    """A process that began after it does not know that it was obeyed, and that it met somebody else."""
    cluster = private_cluster()
    database = await new_database(cluster)
    await disconnect(await database.connect(), "u")
    rig = await start_rig(database.url)
    back = rig.connect("u")
    await rig.caught_up()

    await asyncio.to_thread(cluster.stop)
    await asyncio.to_thread(cluster.start)

    await until(lambda: back.close_code is not None)
    assert back.close_code == CloseCode.RESTART

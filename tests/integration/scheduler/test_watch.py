"""Health learns of what others broke and mended, and of jobs that fail."""

import asyncpg
import pytest

from app.scheduler.watch import BellsWatch
from app.store.database import Database as Pool
from app.store.database import address
from tests.conftest import NewCluster, NewDatabase
from tests.integration.scheduler.clients import connect_live, eventually
from tests.integration.scheduler.conftest import StartService
from tests.support.host import add_user, log_mood


@pytest.mark.parametrize(
    ("breaks", "mends"),
    [
        (
            "ALTER TABLE moods DISABLE TRIGGER trigger_mood_realtime",
            "ALTER TABLE moods ENABLE TRIGGER trigger_mood_realtime",
        ),
        (
            "DROP TRIGGER trigger_mood_realtime ON moods",
            "CREATE TRIGGER trigger_mood_realtime AFTER INSERT ON moods FOR EACH ROW EXECUTE FUNCTION notify_mood_event()",
        ),
    ],
    ids=["disabled", "dropped"],
)
async def test_health_notices_a_lost_trigger_and_its_return(
    host: asyncpg.Connection, start_service: StartService, breaks: str, mends: str
) -> None:
    """It is named while it is missing, and the process stays ready."""
    service = await start_service(triggers_interval=0.1)
    reason = "trigger missing or disabled: trigger_mood_realtime on moods"

    async def named() -> bool:
        return reason in service.health.report()["reasons"]

    async def not_named() -> bool:
        return not await named()

    assert not await named()
    await host.execute(breaks)
    await eventually(named)
    assert service.health.report()["status"] == "degraded"
    assert service.health.report()["triggers"] == {"missing": ["trigger_mood_realtime on moods"]}
    assert service.health.not_ready() == []
    await host.execute(mends)
    await eventually(not_named)


async def test_a_failing_job_is_in_health_until_it_works_again_and_stops_nothing(
    host: asyncpg.Connection, start_service: StartService
) -> None:
    """With its table gone the heartbeat fails; events arrive, other jobs run, and it recovers by itself."""
    service = await start_service(beat_interval=0.1, bells_interval=0.1)
    user = await add_user(host)
    client = await connect_live(service, user)

    async def degraded() -> bool:
        return any(reason.startswith("job heartbeat: ") for reason in service.health.report()["reasons"])

    async def recovered() -> bool:
        return not await degraded()

    await host.execute("ALTER TABLE realtime_processes RENAME TO elsewhere")
    await eventually(degraded)
    assert service.health.report()["jobs"]["heartbeat"]["failing"]
    assert service.health.not_ready() == []
    runs = service.scheduler.outcomes["bells"].runs
    await log_mood(host, user)
    await client.until(lambda c: len(c.ids) == 1)

    async def others_ran() -> bool:
        return service.scheduler.outcomes["bells"].runs > runs + 2

    await eventually(others_ran)
    assert service.scheduler.outcomes["bells"].failures == 0
    await host.execute("ALTER TABLE elsewhere RENAME TO realtime_processes")
    await eventually(recovered)
    assert await host.fetchval("SELECT count(*) FROM realtime_processes") == 1


async def test_health_says_when_bells_are_silent_because_the_queue_is_full_and_when_they_ring_again(
    new_database: NewDatabase, private_cluster: NewCluster, major: int
) -> None:
    """A stranger's LISTEN that sits in a transaction fills the queue; the look after it left frees it."""
    if major < 17:
        pytest.skip("the size of the queue can be set from PostgreSQL 17 on")
    crowded = await new_database(private_cluster(options={"max_notify_queue_pages": "64", "fsync": "off"}))
    host, stranger = await crowded.connect(), await crowded.connect()
    pool = Pool(address(crowded.url), size=1)
    bells = BellsWatch(pool)
    assert bells.state().details == {"queue_usage": None}
    await bells.run()
    assert bells.state().reasons == ()

    await stranger.execute("LISTEN anything")
    await stranger.execute("BEGIN; SELECT 1")
    for number in range(40):
        await host.execute("SELECT pg_notify('anything', $1)", f"{number:07900}")
    await bells.run()
    full = bells.state()
    await stranger.execute("ROLLBACK")
    await stranger.execute("UNLISTEN *")
    await bells.run()
    await pool.close()

    assert full.details["queue_usage"] > 0.5
    assert len(full.reasons) == 1
    assert full.ready
    assert bells.state().reasons == ()

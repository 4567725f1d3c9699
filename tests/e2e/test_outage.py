"""The database goes away and comes back: sockets stay, nothing is lost, nobody has to restart anything."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest

from app.embedded import Cluster, processes
from tests.conftest import NewCluster, NewDatabase
from tests.e2e.conftest import Connect, Eventually, StartServer
from tests.support import host as app
from tests.support.client import open_client
from tests.support.postgres import Database, Servers
from tests.support.server import Server


@pytest.fixture
def stoppable(private_cluster: NewCluster) -> Cluster:
    """A server that a test may stop."""
    return private_cluster()


async def not_ready(server: Server, eventually: Eventually) -> dict[str, Any]:
    """Wait until it wants no traffic; return its health."""

    async def met() -> bool:
        return (await server.get("/realtime/ready")).status_code == 503

    await eventually(met)
    return await server.health()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_database_that_stops_and_returns_costs_nothing(
    stoppable: Cluster,
    new_database: NewDatabase,
    start_server: StartServer,
    connect: Connect,
    eventually: Eventually,
    mode: Any,
) -> None:
    """The same sockets go on; what was committed before, and after, arrives; what was read is marked."""
    database = await new_database(stoppable)
    server = start_server(database.url)
    await server.ready()
    host = await database.connect()
    user, later = await app.add_user(host), await app.add_user(host)
    device = {"user_id": user, "device_token": f"t {user}", "platform": "ios"}
    assert (await server.request("POST", "/realtime/devices", json=device)).status_code == 201
    nameless = await connect(server, user)
    phone = await connect(server, user, device_token=f"t {user}")
    await app.log_moods(host, [user], 5)
    for client in (nameless, phone):
        await client.got(5)
    await app.log_mood(host, later, 1)

    await asyncio.to_thread(stoppable.stop, mode)
    health = await not_ready(server, eventually)
    accepted = await connect(server, later)
    unavailable = await open_client(server.address, user_id=user, device_token=f"t {user}")
    who = {"user_id": user, "device_token": f"t {user}"}
    refused = [
        await server.request("POST", "/realtime/devices", json=device),
        await server.get("/realtime/sync", user_id=user),
        await server.get("/realtime/sync", user_id=user, wait="25"),
        await server.request("POST", "/realtime/sync/ack", json={"user_id": user, "ids": [1]}),
        await server.request("POST", "/realtime/sync", json={**who, "actions": []}),
    ]
    await phone.ask()

    assert health["status"] == "degraded"
    assert any(reason.startswith("database: ") for reason in health["reasons"])
    assert health["database"]["reachable"] is False
    assert await unavailable.ended() == 1011
    assert [message.get("code") for message in unavailable.messages] == ["unavailable"]
    assert [answer.status_code for answer in refused] == [503] * len(refused)
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)

    await asyncio.to_thread(stoppable.start)
    await database.close()
    host = await database.connect()
    await app.log_moods(host, [user], 5)
    for client in (nameless, phone):
        await client.until(lambda one: len(set(one.ids)) >= 10)
        assert client.close_code is None
    assert [event["data"]["mood_score"] for event in await accepted.got(1)] == [1]
    await server.ready()

    async def recovered() -> bool:
        unmarked = await host.fetchval("SELECT count(*) FROM realtime_events WHERE NOT delivered")
        return unmarked == 0 and (await server.health())["status"] == "healthy"

    await eventually(recovered)
    for client in (nameless, phone):
        assert len(set(client.ids)) == 10
        assert len(client.ids) <= 15, "duplicates only of what was written within the overlap"
    if mode == "fast":
        assert nameless.ids == sorted(set(nameless.ids))


async def test_a_position_from_before_a_restart_resumes_and_proves_nothing(
    stoppable: Cluster, new_database: NewDatabase, start_server: StartServer, eventually: Eventually
) -> None:
    """Over HTTP: xids may be those of other rows now, so an ack marks what it names, and moves nothing."""
    database = await new_database(stoppable)
    server = start_server(database.url, overlap=0.001)
    await server.ready()
    host = await database.connect()
    user = await app.add_user(host)
    who = {"user_id": user, "device_token": f"t {user}"}
    registered = await server.request("POST", "/realtime/devices", json={**who, "platform": "ios"})
    assert registered.status_code == 201
    await app.log_moods(host, [user], 3)
    before = (await server.get("/realtime/sync", **who)).json()
    await database.close()
    await asyncio.to_thread(stoppable.stop, "immediate")
    await asyncio.to_thread(stoppable.start)
    host = await database.connect()

    async def recovered() -> bool:
        return (await server.health())["status"] == "healthy"

    await eventually(recovered)
    stored = "SELECT position_seen::text, position_taken_at FROM users_devices WHERE user_id = $1"
    device = await host.fetchrow(stored, user)
    ack = {**who, "position": before["next"], "ids": [before["messages"][0]["id"]]}
    acked = await server.request("POST", "/realtime/sync/ack", json=ack)
    assert (acked.status_code, acked.json()) == (200, {"marked": 1})
    assert await host.fetchrow(stored, user) == device
    await app.log_mood(host, user, 9)
    after = (await server.get("/realtime/sync", **who, position=before["next"])).json()
    repeated = await server.request("POST", "/realtime/sync/ack", json={**who, "position": after["next"]})

    assert (after["resumed"], after["reason"]) == (True, None)
    assert after["epoch"] != before["epoch"]
    assert [message["data"]["mood_score"] for message in after["messages"]] == [9]
    assert repeated.json() == {"marked": 3}
    assert await host.fetchrow(stored, user) != device


async def test_a_service_that_starts_before_its_database_waits_for_it(
    stoppable: Cluster, new_database: NewDatabase, start_server: StartServer, connect: Connect
) -> None:
    """It stays up and takes connections, is not ready, and needs no restart."""
    database = await new_database(stoppable)
    host = await database.connect()
    user = await app.add_user(host)
    await app.log_mood(host, user, 1)
    await database.close()
    await asyncio.to_thread(stoppable.stop)

    server = start_server(database.url)
    await server.answers()
    ready, health = await server.get("/realtime/ready"), await server.health()
    client = await connect(server, user)
    await asyncio.to_thread(stoppable.start)
    await server.ready()
    await client.got(1)
    await app.log_mood(await database.connect(), user, 2)
    events = await client.got(2)

    assert ready.status_code == 503
    assert ready.json()["reasons"][0].startswith("database: ")
    assert health["status"] == "degraded"
    assert [event["data"]["mood_score"] for event in events] == [1, 2]


async def test_a_service_that_waits_can_be_ended(
    stoppable: Cluster, new_database: NewDatabase, start_server: StartServer, connect: Connect
) -> None:
    """With status 0 and in time, though nothing can be written down."""
    database = await new_database(stoppable)
    await asyncio.to_thread(stoppable.stop)
    server = start_server(database.url)
    await server.answers()
    client = await connect(server, "ada")

    status, took = await server.stop()

    assert (status, await client.ended()) == (0, 1001)
    assert took < 11


@pytest.fixture
def freeze(stoppable: Cluster) -> Iterator[Callable[[], None]]:
    """Stop every process of the database in its tracks: it says nothing any more, and closes nothing."""

    def send(number: int) -> None:
        for pid in processes.find(stoppable.cluster_name, stoppable.data_dir.stat().st_uid):
            os.kill(pid, number)

    yield lambda: send(signal.SIGSTOP)
    send(signal.SIGCONT)


@pytest.mark.parametrize(
    "how",
    [
        "stopped",
        "frozen",
    ],
)
async def test_a_service_whose_database_is_gone_can_be_ended(
    stoppable: Cluster,
    new_database: NewDatabase,
    start_server: StartServer,
    connect: Connect,
    freeze: Callable[[], None],
    how: str,
) -> None:
    """In time and with status 0; what it could not write down is sent again by the next."""
    database = await new_database(stoppable)
    server = start_server(database.url)
    await server.healthy()
    host = await database.connect()
    user = await app.add_user(host)
    client = await connect(server, user)
    await app.log_moods(host, [user], 100)
    await client.got(100)
    await database.close()
    await asyncio.to_thread(stoppable.stop if how == "stopped" else freeze)

    status, took = await server.stop()

    assert (status, await client.ended()) == (0, 1001)
    assert took < 11
    assert server.survivors() == []


async def test_a_database_that_freezes_and_goes_on_costs_nothing(
    stoppable: Cluster,
    new_database: NewDatabase,
    start_server: StartServer,
    connect: Connect,
    eventually: Eventually,
    freeze: Callable[[], None],
) -> None:
    """Half-open connections say nothing; health does, and it goes on when the database does."""
    database = await new_database(stoppable)
    server = start_server(database.url)
    await server.healthy()
    host = await database.connect()
    user = await app.add_user(host)
    client = await connect(server, user)
    await app.log_mood(host, user, 1)
    await client.got(1)

    freeze()

    async def health_has_noticed() -> bool:
        return (await server.health())["status"] == "degraded"

    await eventually(health_has_noticed)
    await client.ask()
    for pid in processes.find(stoppable.cluster_name, stoppable.data_dir.stat().st_uid):
        os.kill(pid, signal.SIGCONT)
    await app.log_mood(host, user, 2)
    await client.got(2)
    await server.healthy()

    assert [event["data"]["mood_score"] for event in client.events] == [1, 2]


async def test_a_killed_backend_is_replaced_without_a_word_to_clients(
    new_database: NewDatabase, start_server: StartServer, connect: Connect
) -> None:
    """Every session of the service is terminated at once, in the middle of its work."""
    database = await new_database()
    server = start_server(database.url)
    await server.ready()
    host = await database.connect()
    user = await app.add_user(host)
    client = await connect(server, user)

    for turn in range(5):
        await app.log_moods(host, [user], 100)
        await host.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'mindvibe%' AND datname = current_database()"
        )
        await client.got(100 * (turn + 1))
    await server.ready()

    assert client.ids == sorted(set(client.ids))
    assert len(client.ids) == 500


class TestStartingOnWhatCannotWork:
    """Exit with a status that says so and one line that says what to do, in a worker too."""

    async def complaint(self, server: Server, workers: int = 1) -> str:
        """What it said besides uvicorn's own lines about processes."""
        status = await server.ended()
        # The supervisor of uvicorn's workers stops too, but says so with status 0.
        assert status != 0 or workers > 1, server.log
        assert "Traceback" not in server.log
        assert server.survivors() == []
        mine = [line for line in server.log.splitlines() if "cannot start" in line or "ERROR" in line]
        said = {line.partition("ERROR:")[2].strip() for line in mine}
        said -= {line for line in said if line.startswith(("Application startup failed", "Child process"))}
        assert len(said) == 1, server.log
        return said.pop()

    @pytest.fixture
    def starting(self) -> Iterator[Any]:
        """Start a server whose log may hold an error."""
        started: list[Server] = []

        def start(url: str | None, **options: Any) -> Server:
            started.append(Server(url, **options))
            return started[-1]

        yield start
        for server in started:
            server.end()

    async def test_an_address_for_listening_that_is_none(self, house: Database, starting: Any) -> None:
        said = await self.complaint(starting(house.url, listen_database_url="mysql://host/db"))
        assert said.startswith("cannot start: LISTEN_DATABASE_URL names mysql")

    async def test_no_such_database(self, starting: Any, servers: Servers) -> None:
        cluster = servers.shared(max(servers.installations))
        said = await self.complaint(starting(cluster.url("nothing_here")))
        assert 'database "nothing_here" does not exist' in said

    async def test_a_wrong_password(
        self, starting: Any, private_cluster: NewCluster, new_database: NewDatabase
    ) -> None:
        cluster = private_cluster(tcp=True)
        database = await new_database(cluster)
        host = await database.connect()
        await host.execute("CREATE ROLE visitor LOGIN PASSWORD 'right'")
        cluster.data_dir.joinpath("pg_hba.conf").write_text(
            "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        await host.execute("SELECT pg_reload_conf()")
        url = database.cluster.url(database.name, user="visitor:wrong", tcp=True).replace("%3A", ":")
        said = await self.complaint(starting(url))
        assert "password authentication failed" in said
        assert "wrong" not in said

    @pytest.mark.parametrize("workers", [1, 2])
    async def test_not_migrated(self, starting: Any, empty_database: Any, workers: int) -> None:
        said = await self.complaint(starting(empty_database.url, workers=workers), workers)
        assert "alembic upgrade head" in said

    async def test_another_migration(self, starting: Any, database: Any) -> None:
        host = await database.connect()
        await host.execute("UPDATE realtime_alembic_version SET version_num = 'create_outbox'")
        said = await self.complaint(starting(database.url))
        assert "alembic upgrade head" in said
        assert "create_outbox" in said

    async def test_a_standby(
        self, starting: Any, private_cluster: NewCluster, standby_of: NewCluster, new_database: NewDatabase
    ) -> None:
        primary = private_cluster()
        database = await new_database(primary)
        standby = standby_of(primary)
        said = await self.complaint(starting(standby.url(database.name)))
        assert "standby" in said

    @pytest.mark.parametrize(
        ("url", "settings", "told"),
        [
            ("mysql://localhost/x", {}, "postgresql://"),
            ("nonsense", {}, "postgresql://"),
            (None, {"environment": "production"}, "DATABASE_URL"),
            ("postgresql://x", {"pool_size": "many", "bells": "loud"}, "POOL_SIZE: "),
            ("postgresql://x", {"pool_size": "many", "bells": "loud"}, "; BELLS: "),
        ],
    )
    async def test_bad_settings(
        self, starting: Any, url: str | None, settings: dict[str, str], told: str
    ) -> None:
        said = await self.complaint(starting(url, **settings))
        assert told in said

    async def test_a_role_without_rights(self, starting: Any, database: Any) -> None:
        host: asyncpg.Connection = await database.connect()
        role = f"visitor_{database.name}"
        await host.execute(f"CREATE ROLE {role} LOGIN")
        try:
            said = await self.complaint(starting(database.cluster.url(database.name, user=role)))
        finally:
            await host.execute(f"DROP ROLE {role}")
        assert "ops/grants.sql" in said

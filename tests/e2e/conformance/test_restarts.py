"""One app on each transport, all of one user, while the service or the database is killed under them."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable

import asyncpg

from app.embedded import Cluster
from tests.conftest import NewCluster, NewDatabase
from tests.e2e.conformance.apps import TRANSPORTS, App, Gone
from tests.e2e.conformance.conftest import SETTINGS, Enroll
from tests.e2e.conftest import StartServer
from tests.support import host as app
from tests.support.postgres import Database
from tests.support.server import PATIENCE, Server

WRITERS = 3
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


async def write(database: Database, user: str, writer: int, go_on: Callable[[], bool]) -> None:
    """Publish numbered events, by ones and by threes, kept and rolled back, whatever the database does."""
    turns = itertools.count()
    while go_on():
        with contextlib.suppress(*AWAY):
            connection = await asyncpg.connect(database.url)
            try:
                while go_on():
                    turn = next(turns)
                    transaction = connection.transaction()
                    await transaction.start()
                    for number in range(turn % 3 + 1):
                        await app.publish(connection, user, "story", writer=writer, turn=turn, number=number)
                        await asyncio.sleep(0.01)
                    await (transaction.rollback() if turn % 5 == 4 else transaction.commit())
            finally:
                connection.terminate()
        await asyncio.sleep(0.05)


async def follow(one: App, server: Callable[[], Server]) -> None:
    """Stay connected, to whatever process is there, until the end is published."""
    while True:
        await one.come_back(server().address)
        try:
            await one.take_until(lambda: one.got and one.got[-1]["type"] == "over")
        except Gone:
            await one.drop()
        else:
            return


async def got_more(apps: list[App], count: int) -> None:
    """Wait until each app has so many messages more than any has now."""
    wanted = max(len(set(one.ids)) for one in apps) + count
    async with asyncio.timeout(PATIENCE):
        while any(len(set(one.ids)) < wanted for one in apps):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


async def check(host: asyncpg.Connection, user: str, apps: list[App]) -> None:
    """Everything that is in the outbox, each writer's in its order; the same for all."""
    committed = await host.fetch("SELECT id FROM realtime_events WHERE user_id = $1 ORDER BY id", user)
    for one in apps:
        assert sorted(set(one.ids)) == [row["id"] for row in committed], one.name
        for writer in range(WRITERS):
            order = [
                (event["data"]["turn"], event["data"]["number"])
                for event in one.got
                if event["data"].get("writer") == writer
            ]
            assert order == sorted(order), one.name


async def test_a_killed_service_costs_nobody_a_message(
    hosts: Database, server: Server, start_server: StartServer, host: asyncpg.Connection, enroll: Enroll
) -> None:
    """Twice, with kill -9, under load; those who say what they have get nothing twice."""
    user = await app.add_user(host)
    apps = [await enroll(transport, user) for transport in TRANSPORTS]
    current = start_server(hosts.url, **SETTINGS)
    await current.ready()
    is_over = False
    writing = [asyncio.create_task(write(hosts, user, n, lambda: not is_over)) for n in range(WRITERS)]
    following = asyncio.gather(*(follow(one, lambda: current) for one in apps))
    for _ in range(2):
        await got_more(apps, 100)
        killed, current = current, start_server(hosts.url, **SETTINGS)
        await current.ready()
        killed.kill()
    await got_more(apps, 100)
    is_over = True
    await asyncio.gather(*writing)
    await app.publish(host, user, "over")
    await following

    await check(host, user, apps)
    for one in apps:
        assert one.cuts == 2 or one.name == "http sync"
        assert one.repeats_at_most or one.repeated == 0, one.name


async def test_a_crashed_database_costs_nobody_a_message(
    private_cluster: NewCluster, new_database: NewDatabase, start_server: StartServer, enroll: Enroll
) -> None:
    """An immediate stop under load: all that was committed comes, some of it twice at most."""
    cluster: Cluster = private_cluster()
    database = await new_database(cluster)
    host = await database.connect()
    user = await app.add_user(host)
    server = start_server(database.url, **SETTINGS)
    await server.ready()
    apps = [await enroll(transport, user, at=server) for transport in TRANSPORTS]
    is_over = False
    writing = [asyncio.create_task(write(database, user, n, lambda: not is_over)) for n in range(WRITERS)]
    following = asyncio.gather(*(follow(one, lambda: server) for one in apps))
    await got_more(apps, 100)
    await asyncio.to_thread(cluster.stop, "immediate")
    await asyncio.to_thread(cluster.start)
    await got_more(apps, 100)
    is_over = True
    await asyncio.gather(*writing)
    await database.close()
    host = await database.connect()
    await app.publish(host, user, "over")
    await following

    await check(host, user, apps)
    for one in apps:
        assert max(one.ids.count(row_id) for row_id in set(one.ids)) <= 2, one.name

"""Everything once and in order on every transport, while hosts write in every way a transaction can end."""

import asyncio
import itertools
from collections.abc import Callable

import asyncpg
import pytest

from tests.e2e.conformance.apps import TRANSPORTS, App, Careful, Refusing
from tests.e2e.conformance.conftest import Enroll
from tests.e2e.conftest import aside
from tests.integration.outbox.writers import SETUP, Truth, write
from tests.support import host as app
from tests.support.postgres import Database
from tests.support.server import PATIENCE, Server

each_transport = pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda one: one.name)
each_transport_and_nacks = pytest.mark.parametrize(
    "transport", [*TRANSPORTS, Refusing, Careful], ids=lambda one: one.name
)

CUTS = 15


@pytest.fixture(scope="module")
def house(house: Database) -> Database:
    """A database whose host has what the writers need."""

    async def prepare() -> None:
        connection = await asyncpg.connect(house.url)
        await connection.execute(SETUP)
        await connection.close()

    aside(prepare())
    return house


@pytest.fixture
async def truth(host: asyncpg.Connection) -> Truth:
    """What is written from here on; scores are unique in the module's database."""
    score = await host.fetchval("SELECT coalesce(max(score), 0) + 1 FROM moods")
    return Truth(next_score=score, next_transaction=score)


def came_to_the_last(one: App) -> Callable[[], bool]:
    """Whether an app has come to what is published last, and to all that it refused."""
    looked_at = 0
    is_over = False

    def met() -> bool:
        nonlocal looked_at, is_over
        is_over |= any(each.body["type"] == "over" for each in one.processed[looked_at:])
        looked_at = len(one.processed)
        return is_over and not (isinstance(one, Refusing) and set(one.refused) - one.back)

    return met


def check(one: App, truth: Truth, user: str) -> None:
    """Everything that was committed, nothing else; in order, but for what was refused and came later."""
    moods = [received for received in one.once if received.body["type"] != "over"]
    assert len(moods) == len(one.once) - 1
    if not isinstance(one, Refusing):
        assert one.once[-1].body["type"] == "over"
        truth.check(moods, [user])
        return
    assert one.refused
    assert {received.data["mood_score"] for received in moods} == truth.of([user])
    truth.check_order([each.data["mood_score"] for each in moods if each.id not in one.refused])


@each_transport_and_nacks
async def test_everything_comes_once_and_in_order(
    hosts: Database,
    server: Server,
    host: asyncpg.Connection,
    truth: Truth,
    enroll: Enroll,
    transport: type[App],
) -> None:
    """What it missed, what is written while it catches up, and what is written afterwards."""
    user, *others = [await app.add_user(host) for _ in range(3)]
    one = await enroll(transport, user)
    await write(hosts, truth, [user, *others], writers=3, rows=300, seed=1)
    await one.connect(server.address)

    reading = asyncio.create_task(one.take_until(came_to_the_last(one)))
    await write(hosts, truth, [user, *others], writers=3, rows=300, seed=2)
    await app.publish(host, user, "over")
    await reading
    await one.finish()

    check(one, truth, user)
    assert one.repeated == 0


@each_transport_and_nacks
async def test_nothing_is_missed_wherever_it_vanishes(
    hosts: Database,
    server: Server,
    host: asyncpg.Connection,
    truth: Truth,
    enroll: Enroll,
    transport: type[App],
) -> None:
    """Cut in catch-up and live, again and again; who says what it has gets nothing twice."""
    user, *others = [await app.add_user(host) for _ in range(3)]
    one = await enroll(transport, user, seed=7)
    await write(hosts, truth, [user, *others], writers=3, rows=300, seed=3)
    over = came_to_the_last(one)

    async def come_and_go() -> None:
        for patience in itertools.cycle((1, 40, 3, 17, 0)):
            await one.connect(server.address)
            for _ in itertools.repeat(None, patience) if one.cuts < CUTS else itertools.repeat(None):
                await one.take()
                if over():
                    return
            await one.drop()

    reading = asyncio.create_task(asyncio.wait_for(come_and_go(), PATIENCE))
    await write(
        hosts,
        truth,
        [user, *others],
        writers=3,
        rows=300,
        seed=4,
        while_=lambda: one.cuts < CUTS and not reading.done(),
    )
    await app.publish(host, user, "over")
    await reading
    await one.finish()

    check(one, truth, user)
    assert one.cuts == CUTS
    assert one.repeated <= one.repeats_at_most * one.cuts


@each_transport
async def test_who_stalls_gets_it_all_afterwards(
    server: Server, host: asyncpg.Connection, enroll: Enroll, transport: type[App]
) -> None:
    """It reads nothing while ten windows are written, and then everything, once."""
    user = await app.add_user(host)
    one = await enroll(transport, user)
    await one.connect(server.address)
    one.stall()
    ids = [await app.publish(host, user, "story", text="x" * 5000, number=n) for n in range(320)]
    one.go_on()

    await one.get(len(ids))
    await one.finish()

    assert one.ids == ids

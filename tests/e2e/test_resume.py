"""A client that keeps its position goes on exactly where it was, wherever it was cut."""

from dataclasses import replace

import asyncpg
import pytest

from app.core.token import decode
from tests.e2e.conftest import Connect, Eventually, StartServer
from tests.support import host as app
from tests.support.postgres import Database
from tests.support.server import Server

ROWS = 700
"""More than a page, so that cuts fall into both."""


def _of_another_database(token: str) -> str:
    position = (given := decode(token)).position
    incarnation = type(position.incarnation)(position.incarnation.system ^ 1, position.incarnation.life)
    return given._replace(position=replace(position, incarnation=incarnation)).text()


def _of_the_future(token: str) -> str:
    position = (given := decode(token)).position
    seen = type(position.seen)(position.seen.xmax + 1_000_000)
    return given._replace(position=replace(position, seen=seen)).text()


async def test_a_client_that_asks_for_positions_gets_one_with_everything(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """In `connected`, with every row and with every pong, and `connected` says that it is new."""
    user = await app.add_user(host)
    await app.log_mood(host, user)
    client = await connect(server, user, position="")
    await client.got(1)
    await client.ask()

    connected, mood, pong = client.messages

    assert set(connected) == {
        *("type", "user_id", "timestamp"),
        *("epoch", "heartbeat_ms", "resumed", "reason", "position"),
    }
    assert (connected["resumed"], connected["reason"]) == (False, "new")
    assert connected["heartbeat_ms"] == 20_000
    assert set(mood) == {"type", "id", "data", "timestamp", "position"}
    assert set(pong) == {"type", "timestamp", "position"}
    assert decode(pong["position"]).position.seen.covers(decode(mood["position"]).position.seen)


async def test_it_resumes_at_every_cut_although_another_client_had_everything(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """In mid-read too: what follows the cut comes once, in order, and nothing before it."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], ROWS)
    first = await connect(server, user, position="")
    everything = [event["id"] for event in await first.got(ROWS)]
    assert everything == sorted(set(everything))
    unconfirmed = "SELECT count(*) = 0 FROM realtime_events WHERE user_id = $1 AND NOT delivered"
    await eventually(lambda: host.fetchval(unconfirmed, user))
    others = await connect(server, user)
    await app.log_mood(host, user)
    everything.append((await others.got(1))[0]["id"])
    await first.got(ROWS + 1)

    for cut in (0, 1, 255, 499, 500, 501, ROWS - 1, ROWS):
        token = first.messages[cut]["position"]
        resumed = await connect(server, user, position=token)
        rest = await resumed.got(len(everything) - cut) if cut <= ROWS else []
        await resumed.ask()

        assert resumed.messages[0]["resumed"] is True
        assert resumed.messages[0]["reason"] is None
        assert resumed.messages[0]["position"] == token
        assert [event["id"] for event in rest] == everything[cut:]
        assert resumed.ids == everything[cut:]
        await resumed.close()


async def test_the_position_of_a_pong_has_everything_before_it(
    server: Server, host: asyncpg.Connection, connect: Connect, eventually: Eventually
) -> None:
    """So an idle client's position does not age, and costs no repeats."""
    user = await app.add_user(host)
    client = await connect(server, user, position="")
    await app.log_moods(host, [user], 3)
    await client.got(3)
    await client.ask()
    token = client.messages[-1]["position"]
    await client.close()
    await app.log_mood(host, user, 9)

    resumed = await connect(server, user, position=token)

    (event,) = await resumed.got(1)
    await resumed.ask()
    assert event["data"]["mood_score"] == 9
    assert len(resumed.ids) == 1
    all_marked = "SELECT count(*) = 0 FROM realtime_events WHERE user_id = $1 AND NOT delivered"
    await eventually(lambda: host.fetchval(all_marked, user))


async def test_it_resumes_on_another_process(
    house: Database, start_server: StartServer, host: asyncpg.Connection, connect: Connect
) -> None:
    """Also when the first one was killed in the middle of sending."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], ROWS)
    one, other = start_server(house.url), start_server(house.url)
    await one.ready()
    await other.ready()
    cut = await connect(one, user, position="")
    await cut.got(10)
    one.kill()
    await cut.ended()
    had = cut.ids
    await app.log_mood(host, user, 9)

    resumed = await connect(other, user, position=cut.events[-1]["position"])

    rest = await resumed.got(ROWS + 1 - len(had))
    assert resumed.messages[0]["resumed"] is True
    assert len({*had, *(event["id"] for event in rest)}) == ROWS + 1
    assert not set(had) & {event["id"] for event in rest}


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("malformed", lambda token: token[:-3]),
        ("malformed", lambda _: "nonsense!"),
        ("other_database", _of_another_database),
        ("future", _of_the_future),
    ],
)
async def test_a_position_that_cannot_be_resumed_is_told_and_costs_nothing_undelivered(
    reason: str, spoil: object, server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """The reason is in `connected`; every undelivered event comes all the same."""
    user = await app.add_user(host)
    client = await connect(server, user, position="")
    await client.ask()
    token = client.messages[-1]["position"]
    await client.close()
    await app.log_mood(host, user, 9)

    resumed = await connect(server, user, position=spoil(token))  # type: ignore[operator]

    (event,) = await resumed.got(1)
    assert event["data"]["mood_score"] == 9
    assert resumed.messages[0]["resumed"] is False
    assert resumed.messages[0]["reason"] == reason


async def test_a_position_that_retention_has_passed_is_told(
    server: Server, host: asyncpg.Connection, connect: Connect
) -> None:
    """What is still there comes; that something may be gone is said."""
    user = await app.add_user(host)
    client = await connect(server, user, position="")
    await client.ask()
    token = client.messages[-1]["position"]
    await client.close()
    await app.log_mood(host, user, 9)
    before = await host.fetchval("SELECT purged_through FROM realtime_retention")
    await host.execute("UPDATE realtime_retention SET purged_through = clock_timestamp()")
    try:
        resumed = await connect(server, user, position=token)
        await resumed.got(1)
    finally:
        await host.execute("UPDATE realtime_retention SET purged_through = $1", before)

    assert resumed.messages[0]["resumed"] is False
    assert resumed.messages[0]["reason"] == "retention"

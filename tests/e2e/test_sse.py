"""Server-Sent Events: the same messages, order, isolation and exact resumption as on a WebSocket."""

import asyncio
from typing import Any

import asyncpg
import pytest

from app.core.token import decode
from tests.e2e.conftest import Connect, Eventually, Listen
from tests.support import host as app
from tests.support import stream
from tests.support.server import Server

ROWS = 700
"""More than a page, so that cuts fall into both."""
UNMARKED = "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND NOT delivered"


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """Nothing is confirmed by living on while a test lasts; comments come often."""
    return {"sse_confirmed_after": 3600, "sse_heartbeat_interval": 0.2}


async def test_it_gets_what_a_websocket_gets(
    server: Server, host: asyncpg.Connection, connect: Connect, listen: Listen
) -> None:
    """What was missed and what comes live, byte for byte, and `connected` first; no field but three."""
    user, other = await app.add_user(host), await app.add_user(host)
    room = await app.create_room(host, user, other)
    await app.log_moods(host, [user, other], 10)
    # The stream first: a pong would confirm what was missed, and who comes then is not owed it.
    events, socket = await listen(server, user), await connect(server, user)
    for number in range(20):
        await app.log_mood(host, user, number)
        await app.log_mood(host, other, number)
        await app.post_message(host, other, room)
        await app.write_entry(host, user)

    await socket.got(65)
    await events.got(65)

    assert (events.status, events.headers["content-type"]) == (200, "text/event-stream")
    assert list(events.messages[0]) == ["type", "user_id", "timestamp"]
    assert (events.messages[0]["type"], events.messages[0]["user_id"]) == ("connected", user)
    assert events.frames[1:] == socket.frames[1:]
    assert {event["data"]["user_id"] for event in events.events} == {user}
    assert events.fields <= {"", "id", "data", "retry"}
    assert len(set(events.positions)) == 66
    assert all(decode(position) for position in events.positions)


async def test_it_resumes_at_every_cut_by_its_last_event_id(
    server: Server, host: asyncpg.Connection, listen: Listen
) -> None:
    """In mid-read too, from `connected` on: what follows the cut comes once and in order."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], ROWS)
    first = await listen(server, user)
    everything = [event["id"] for event in await first.got(ROWS)]
    assert everything == sorted(set(everything))

    for cut in (0, 1, 255, 499, 500, 501, ROWS - 1, ROWS):
        resumed = await listen(server, user, {"Last-Event-ID": first.positions[cut]})
        await resumed.got(ROWS - cut)
        await resumed.next_comment()

        assert resumed.ids == everything[cut:]
        assert resumed.messages[0]["resumed"] is True
        assert resumed.positions[0] == first.positions[cut]
        await resumed.vanish()


async def test_what_a_last_event_id_covers_has_arrived_and_nothing_else(
    server: Server, host: asyncpg.Connection, listen: Listen, eventually: Eventually
) -> None:
    """Of ten read from the socket, the client says that it has got seven."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 10)
    first = await listen(server, user)
    await first.got(10)
    await first.next_comment()
    await first.vanish()
    assert await host.fetchval(UNMARKED, user) == 10

    await listen(server, user, {"Last-Event-ID": first.positions[7]})

    async def seven_are_marked() -> bool:
        return await host.fetchval(UNMARKED, user) == 3

    await eventually(seven_are_marked)


async def test_the_last_event_id_wins_over_the_position_in_the_address(
    server: Server, host: asyncpg.Connection, listen: Listen
) -> None:
    """A browser repeats the address it was given, and only the header is new."""
    user = await app.add_user(host)
    await app.log_moods(host, [user], 5)
    first = await listen(server, user)
    await first.got(5)

    by_address = await listen(server, user, position=first.positions[2])
    by_header = await listen(server, user, {"Last-Event-ID": first.positions[4]}, position=first.positions[2])

    assert [event["id"] for event in await by_address.got(3)] == first.ids[2:]
    assert [event["id"] for event in await by_header.got(1)] == first.ids[4:]


async def test_positions_are_in_the_messages_of_those_who_ask_for_them(
    server: Server, host: asyncpg.Connection, listen: Listen
) -> None:
    """By `position=`; without it they are beside the messages only, also after a reconnect."""
    user = await app.add_user(host)
    await app.log_mood(host, user)

    asking = await listen(server, user, position="")
    silent = await listen(server, user)
    await asking.got(1)
    await silent.got(1)
    back = await listen(server, user, {"Last-Event-ID": silent.positions[0]})
    await back.got(1)

    told = {"epoch", "heartbeat_ms", "resumed", "reason", "position"}
    assert set(asking.messages[0]) - set(silent.messages[0]) == told
    assert [message["position"] for message in asking.messages] == asking.positions
    assert list(silent.events[0]) == list(back.events[0]) == ["type", "id", "data", "timestamp"]
    assert set(back.messages[0]) - set(silent.messages[0]) == told


async def test_a_last_event_id_that_is_no_position_is_told(
    server: Server, host: asyncpg.Connection, listen: Listen
) -> None:
    """And costs nothing undelivered."""
    user = await app.add_user(host)
    await app.log_mood(host, user)

    lost = await listen(server, user, {"Last-Event-ID": "42"})

    assert len(await lost.got(1)) == 1
    assert (lost.messages[0]["resumed"], lost.messages[0]["reason"]) == (False, "malformed")


async def test_an_idle_stream_gets_comments_and_its_position_stays_new(
    server: Server, host: asyncpg.Connection, listen: Listen
) -> None:
    """An id without data is no event to a browser, and is sent back all the same."""
    user, other = await app.add_user(host), await app.add_user(host)
    idle = await listen(server, user)
    await idle.next_comment()
    before = idle.last_event_id
    await app.log_mood(host, other)

    await idle.until(lambda stream: stream.last_event_id != before)
    await idle.next_comment()

    assert decode(idle.last_event_id).position.taken_at > decode(before).position.taken_at
    assert len(idle.messages) == 1
    gaps = [later - earlier for earlier, later in zip(idle.comments, idle.comments[1:], strict=False)]
    assert gaps


async def test_health_counts_streams(
    server: Server, connect: Connect, listen: Listen, eventually: Eventually
) -> None:
    """Like every other connection, and no longer than they last."""
    one, other = await listen(server, "one"), await listen(server, "other")
    await connect(server, "one")

    health = await server.health()
    assert (health["active_users"], health["delivery"]["connections"]) == (2, 3)
    assert health["delivery"]["sse_confirmation"] == "acknowledged"
    await one.vanish()
    await other.vanish()

    async def are_gone() -> bool:
        return (await server.health())["delivery"]["connections"] == 1

    await eventually(are_gone)


class TestRefusals:
    async def test_nobody_and_unknown_devices_are_refused_for_good(
        self, server: Server, host: asyncpg.Connection, listen: Listen
    ) -> None:
        """By a status, at which a browser stops."""
        user = await app.add_user(host)

        nobody = await listen(server, "")
        stranger = await listen(server, user, device_token="unknown")
        stranger_by_header = await listen(server, user, {"X-Device-Token": "unknown"})
        for one in (nobody, stranger, stranger_by_header):
            await one.finished()

        assert [one.status for one in (nobody, stranger, stranger_by_header)] == [400, 400, 400]
        assert b'"code":"malformed"' in nobody.body
        assert b'"code":"unknown_device"' in stranger.body

    async def test_too_many_streams_of_a_user_may_come_back_later(
        self, server: Server, listen: Listen
    ) -> None:
        """A browser is told in its stream, since any other status would stop it for good."""
        for _ in range(20):
            await listen(server, "busy")

        plain = await listen(server, "busy")
        browser = await listen(server, "busy", {"Accept": "text/event-stream"})
        await plain.finished()
        await browser.finished()

        assert (plain.status, plain.headers["retry-after"]) == (429, "5")
        assert (browser.status, browser.messages[0]["code"]) == (200, "too_many_connections")
        assert browser.retry is not None
        assert 5000 <= browser.retry <= 10_000

    async def test_a_page_of_another_origin_may_listen(self, server: Server) -> None:
        """A browser asks by itself before it sends a header of ours."""
        origin = {"Origin": "http://localhost:3000"}
        asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-device-token"}

        got = await stream.request(server.address, f"{stream.PATH}?user_id=ada", headers=origin)
        preflight = await stream.request(server.address, method="OPTIONS", headers=origin | asked)
        posted = await stream.request(server.address, method="POST")
        await got.until(lambda one: one.messages)
        await asyncio.gather(got.vanish(), preflight.vanish(), posted.vanish())

        assert got.headers["access-control-allow-origin"] == "*"
        assert preflight.status == 200
        assert preflight.headers["access-control-allow-headers"] == "x-device-token"
        assert (posted.status, posted.headers["allow"]) == (405, "GET")


class TestForGood:
    async def test_a_device_that_is_replaced_or_removed_does_not_come_back(
        self, server: Server, host: asyncpg.Connection, listen: Listen
    ) -> None:
        """What a browser sends when it comes back by itself is answered with what stops it."""
        user = await app.add_user(host)
        device = {"user_id": user, "device_token": f"t {user}", "platform": "web"}
        registered = (await server.request("POST", "/realtime/devices", json=device)).json()
        older = await listen(server, user, device_token=f"t {user}")
        newer = await listen(server, user, {"X-Device-Token": f"t {user}"})
        await older.finished()
        again = await listen(server, user, {"Last-Event-ID": older.last_event_id}, device_token=f"t {user}")
        await again.finished()
        still_there = not newer.ended

        removed = await server.request(
            "DELETE", f"/realtime/devices/{registered['id']}", params={"user_id": user}
        )
        await newer.finished()
        last = await listen(server, user, {"Last-Event-ID": newer.last_event_id}, device_token=f"t {user}")
        await last.finished()

        assert (older.messages[-1]["type"], older.messages[-1]["code"]) == ("error", "replaced")
        assert still_there
        assert removed.status_code in {200, 204}
        assert newer.messages[-1]["code"] == "not_allowed"
        assert (again.status, last.status) == (204, 204)

    async def test_a_deleted_user_is_refused(
        self, server: Server, host: asyncpg.Connection, listen: Listen
    ) -> None:
        """A stream that stands ends, and whoever asks anew gets a status, since nothing was said before."""
        user = await app.add_user(host)
        standing = await listen(server, user)

        await app.delete_user(host, user)
        await standing.finished()

        again = await listen(server, user)
        await again.finished()

        assert standing.messages[-1]["code"] == "not_allowed"
        assert standing.last_event_id.startswith("!")
        assert again.status == 403
        assert b'"code":"not_allowed"' in again.body


async def test_sync_rows_go_to_mobile_devices_only(
    server: Server, host: asyncpg.Connection, listen: Listen
) -> None:
    """As on a WebSocket."""
    user = await app.add_user(host)
    for platform in ("ios", "web"):
        device = {"user_id": user, "device_token": f"{platform} {user}", "platform": platform}
        assert (await server.request("POST", "/realtime/devices", json=device)).status_code == 201
    await app.queue_sync(host, user)
    await app.log_mood(host, user)

    phone = await listen(server, user, device_token=f"ios {user}")
    browser = await listen(server, user, device_token=f"web {user}")
    await asyncio.gather(phone.got(2), browser.got(1))
    await browser.next_comment()

    assert [event["type"] for event in phone.events] == ["sync", "mood_update"]
    assert [event["type"] for event in browser.events] == ["mood_update"]


async def test_a_browser_proves_nothing_about_sync_rows(
    server: Server, host: asyncpg.Connection, listen: Listen, eventually: Eventually
) -> None:
    """Its position is beyond them, and it never gets any: they wait for a phone."""
    user = await app.add_user(host)
    sync_id = await app.queue_sync(host, user)
    await app.log_mood(host, user)
    browser = await listen(server, user)
    await browser.got(1)
    await browser.next_comment()

    await listen(server, user, {"Last-Event-ID": browser.last_event_id})

    async def the_mood_is_marked() -> bool:
        return await host.fetchval(UNMARKED, user) == 0

    await eventually(the_mood_is_marked)
    assert await host.fetchval("SELECT synced FROM sync_queue WHERE id = $1", sync_id) is False

"""A browser's own `EventSource`, with no code in the page but `new EventSource(url)` and writing down what came."""

import json

import asyncpg
import pytest

from tests.e2e.conftest import Eventually, StartServer
from tests.e2e.readme import block
from tests.support import host as app
from tests.support.browser import browser_page, find_chromium
from tests.support.postgres import Database
from tests.support.server import Server

CHROMIUM = find_chromium()
UNMARKED = "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND NOT delivered"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found; it is Debian's package `chromium`"),
]


def page(server: Server, **query: str) -> str:
    """A page of another origin that listens."""
    parameters = "&".join(f"{name}={value}" for name, value in query.items())
    return f"""<!doctype html><script>
const came = [];
const events = new EventSource("{server.url}/realtime/events?{parameters}");
events.onmessage = (event) => came.push(JSON.parse(event.data));
</script>"""


async def test_it_resumes_after_the_server_was_killed_and_started_again(
    house: Database, host: asyncpg.Connection, start_server: StartServer, eventually: Eventually
) -> None:
    """Killed in the middle of sending, twice: every event comes once and in order, also what was written meanwhile."""
    assert CHROMIUM is not None
    user = await app.add_user(host)
    await app.log_moods(host, [user], 700)
    server = start_server(house.url)
    await server.ready()

    async with browser_page(CHROMIUM, page(server, user_id=user)) as browser:
        for expected in (1500, 2300):
            await browser.until("came.some((message) => message.id)")
            writing = asyncpg.connect(house.url)
            writer = await writing
            await app.log_moods(writer, [user], 400)
            server.kill()
            await app.log_moods(writer, [user], 400)
            await writer.close()
            server = start_server(house.url, port=server.port, sse_confirmed_after=1)
            await browser.until(f"came.filter((message) => message.id).length >= {expected}")
        await app.log_mood(host, user, 0)
        await browser.until("came.at(-1).data?.mood_score === 0")
        came = json.loads(await browser.value("JSON.stringify(came)"))

        ids = [message["id"] for message in came if "id" in message]
        assert ids == sorted(set(ids))
        assert len(ids) == 2301
        connected = [message for message in came if message["type"] == "connected"]
        assert len(connected) >= 3
        assert set(connected[0]) == {"type", "user_id", "timestamp"}
        assert all(message["resumed"] is True for message in connected[1:])

        async def all_are_marked() -> bool:
            return await host.fetchval(UNMARKED, user) == 0

        await eventually(all_are_marked)


async def test_it_comes_back_by_itself_to_a_process_that_took_the_place_of_one_that_left(
    house: Database, host: asyncpg.Connection, start_server: StartServer
) -> None:
    """A deploy: told to come back, it does, and has missed nothing."""
    assert CHROMIUM is not None
    user = await app.add_user(host)
    server = start_server(house.url)
    await server.ready()

    async with browser_page(CHROMIUM, page(server, user_id=user)) as browser:
        await browser.until("came.length")
        await app.log_mood(host, user, 1)
        await browser.until("came.some((message) => message.id)")
        assert (await server.stop())[0] == 0
        await app.log_mood(host, user, 2)
        start_server(house.url, port=server.port)
        await browser.until("came.some((message) => message.data?.mood_score === 2)")
        came = json.loads(await browser.value("JSON.stringify(came)"))

    assert [message["type"] for message in came] == [
        *("connected", "mood_update", "reconnect"),
        *("connected", "mood_update"),
    ]


async def test_it_stops_for_good_when_it_was_closed_for_good(
    house: Database, host: asyncpg.Connection, start_server: StartServer
) -> None:
    """A device that another page took over does not take it back, and so on for ever."""
    assert CHROMIUM is not None
    user = await app.add_user(host)
    server = start_server(house.url)
    await server.ready()
    device = {"user_id": user, "device_token": "of-one-browser", "platform": "web"}
    assert (await server.request("POST", "/realtime/devices", json=device)).status_code == 201
    html = page(server, user_id=user, device_token="of-one-browser")

    async with browser_page(CHROMIUM, html) as older:
        await older.until("came.length")
        async with browser_page(CHROMIUM, html) as newer:
            await newer.until("came.length")
            await older.until("events.readyState === EventSource.CLOSED")
            await app.log_mood(host, user)
            await newer.until("came.some((message) => message.id)")
            assert await newer.value("came.length") == 2
        assert await older.value("came.map((message) => message.type)") == ["connected", "error"]


async def test_the_readmes_example_is_all_that_a_page_needs(
    house: Database, host: asyncpg.Connection, start_server: StartServer
) -> None:
    """As it is printed, but for the port."""
    assert CHROMIUM is not None
    user = await app.add_user(host, "user123")
    server = start_server(house.url)
    await server.ready()
    example = block("javascript", "const events = new EventSource").text.replace(":8002", f":{server.port}")
    written_down = "const came = []; console.log = (message) => came.push(message);"

    async with browser_page(CHROMIUM, f"<script>{written_down}{example}</script>") as browser:
        await browser.until("came.length")
        await app.log_mood(host, user, 7)
        await browser.until("came.length === 2")

        assert await browser.value("came[0].type") == "connected"
        assert await browser.value("came[1].data.mood_score") == 7

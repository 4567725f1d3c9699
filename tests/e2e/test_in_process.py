"""The application under another server: the in-process test client, where no pong can be seen."""

import asyncio
from typing import Any

import asyncpg
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from tests.support import host as app
from tests.support.postgres import Database
from tests.support.roles import as_service
from tests.support.server import PATIENCE


async def marked(connection: asyncpg.Connection, user: str) -> None:
    """Wait until everything of a user has been marked."""
    left = "SELECT count(*) FROM realtime_events WHERE user_id = $1 AND NOT delivered"
    async with asyncio.timeout(PATIENCE):
        while await connection.fetchval(left, user):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.03)


def test_a_client_gets_its_events_and_health_says_how_they_are_confirmed(
    house: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted by the transport has to do; rubbish, unknown paths and the end are as everywhere."""
    monkeypatch.setenv("DATABASE_URL", as_service(house))

    async def on_host(do: Any, *arguments: Any) -> Any:
        connection = await asyncpg.connect(house.url)
        try:
            return await do(connection, *arguments)
        finally:
            await connection.close()

    user = asyncio.run(on_host(app.add_user))
    asyncio.run(on_host(app.log_mood, user, 1))
    with TestClient(create_app()) as client:
        with client.websocket_connect(f"/realtime/ws?user_id={user}") as socket:
            first, missed = socket.receive_json(), socket.receive_json()
            asyncio.run(on_host(app.log_mood, user, 2))
            live = socket.receive_json()
            socket.send_text("rubbish")
            error = socket.receive_json()
            socket.send_bytes(b"rubbish")
            binary = socket.receive_json()
            socket.send_text("ping")
            pong = socket.receive_json()
            health = client.get("/realtime/health").json()
            silence = client.get(f"/realtime/sync?user_id=nobody-{user}&wait=0.3")
            asyncio.run(on_host(marked, user))
        with client.websocket_connect("/realtime/ws") as socket:
            refusal, end = socket.receive_json(), socket.receive()

    assert health["delivery"]["confirmation"] == "transport"
    assert health["delivery"]["missing"]
    assert (first["type"], first["user_id"]) == ("connected", user)
    assert [missed["data"]["mood_score"], live["data"]["mood_score"]] == [1, 2]
    assert (error["code"], binary["code"], pong["type"]) == ("malformed", "binary", "pong")
    assert health["active_users"] == 1
    assert silence.status_code == 200
    assert silence.json()["messages"] == []
    assert silence.elapsed.total_seconds() >= 0.3
    assert refusal["code"] == "malformed"
    assert (end["type"], end["code"]) == ("websocket.close", 4400)

"""The least that a service can do for which a NOTIFY is no data: hear the bell, read once, send once."""

import asyncio
import os
from collections import defaultdict
from typing import Any

import asyncpg

READ = """
SELECT id, user_id, json_build_object('type', event_type, 'id', id, 'data', payload)::text
FROM realtime_events WHERE id > $1 ORDER BY id"""

users: defaultdict[str, set[Any]] = defaultdict(set)
"""The `send` of each connection, by user."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Raw ASGI: a lifespan in which the outbox is read, and WebSockets."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await _serve(scope["query_string"].decode().partition("user_id=")[2], receive, send)
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})


async def _live(receive: Any, send: Any) -> None:
    await receive()
    reading = asyncio.create_task(_read())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    reading.cancel()
    await send({"type": "lifespan.shutdown.complete"})


async def _read() -> None:
    rung = asyncio.Event()
    dsn = os.environ["DATABASE_URL"]
    listening = await asyncpg.connect(dsn)
    # By the primary key, whatever the planner makes of a table that was empty when it was last looked at.
    connection = await asyncpg.connect(
        dsn, server_settings={"enable_seqscan": "off", "enable_bitmapscan": "off"}
    )
    await listening.add_listener("mood_events", lambda *_: rung.set())
    read = await connection.prepare(READ)
    last = 0
    while True:
        await rung.wait()
        rung.clear()
        for row_id, user_id, text in await read.fetch(last):
            last = row_id
            for send in users.get(user_id, ()):
                await send({"type": "websocket.send", "text": text})


async def _serve(user_id: str, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    users[user_id].add(send)
    while (await receive())["type"] != "websocket.disconnect":
        pass
    users[user_id].discard(send)

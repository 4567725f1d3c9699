"""What most tutorials build: one LISTEN whose payloads go to sets of WebSockets; nothing is kept."""

import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

users: defaultdict[str, set[WebSocket]] = defaultdict(set)

SCHEMA = """
CREATE TABLE moods (id serial PRIMARY KEY, user_id text, score int, at timestamptz);
CREATE FUNCTION notify_mood() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('mood_events', json_build_object('type', 'mood_update', 'data',
        json_build_object('event_type', 'mood_logged', 'user_id', NEW.user_id,
                          'mood_score', NEW.score, 'timestamp', NEW.at))::text);
    RETURN NEW;
END $$;
CREATE TRIGGER mood AFTER INSERT ON moods FOR EACH ROW EXECUTE FUNCTION notify_mood();
"""


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Listen for as long as the server runs."""

    async def forward(_c: object, _p: int, _n: str, payload: object) -> None:
        assert isinstance(payload, str)
        message = json.loads(payload)
        for socket in list(users[message["data"]["user_id"]]):
            await socket.send_text(payload)

    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.add_listener("mood_events", forward)
    yield
    await connection.close()


app = FastAPI(lifespan=lifespan)


@app.websocket("/realtime/ws")
async def connect(socket: WebSocket, user_id: str) -> None:
    """Keep a user's socket until it goes."""
    await socket.accept()
    users[user_id].add(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        users[user_id].discard(socket)

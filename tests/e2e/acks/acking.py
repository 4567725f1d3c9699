"""What a client that acknowledges says, and what the tables tell of it."""

import json
from typing import Any

import asyncpg

from tests.e2e.conftest import Eventually
from tests.support.client import Client


async def ack(client: Client, seq: Any) -> None:
    """Say that everything up to a number is processed."""
    await client.send(json.dumps({"type": "ack", "seq": seq}))


async def nack(client: Client, seq: Any, reason: str | None = None) -> None:
    """Say that one message cannot be processed."""
    said = {"type": "nack", "seq": seq} | ({} if reason is None else {"reason": reason})
    await client.send(json.dumps(said))


def told(client: Client) -> list[tuple[int, int, bool]]:
    """Of every event and sync row that came: id, number, and whether it says that it came before."""
    return [(event["id"], event["seq"], event["redelivered"]) for event in client.events]


def errors(client: Client) -> list[str]:
    """The codes of the errors that came."""
    return [message["code"] for message in client.messages if message["type"] == "error"]


async def states(host: asyncpg.Connection, device_id: int) -> list[str]:
    """What the view says of a device's events, in id order."""
    rows = await host.fetch(
        "SELECT state FROM realtime_delivery WHERE device_id = $1 ORDER BY event_id", device_id
    )
    return [row["state"] for row in rows]


async def delivered(host: asyncpg.Connection, user: str) -> list[bool]:
    """Whether each event of a user has reached somebody, in id order."""
    rows = await host.fetch("SELECT delivered FROM realtime_events WHERE user_id = $1 ORDER BY id", user)
    return [row["delivered"] for row in rows]


async def tried(host: asyncpg.Connection, user: str) -> list[dict[str, Any]]:
    """What is kept of rows that the user's readers did not acknowledge."""
    rows = await host.fetch(
        "SELECT event_id, device_id, attempts, nacks FROM realtime_redeliveries"
        " WHERE user_id = $1 ORDER BY event_id, device_id",
        user,
    )
    return [dict(row) for row in rows]


async def letters(host: asyncpg.Connection, user: str) -> list[dict[str, Any]]:
    """The user's dead letters."""
    rows = await host.fetch(
        "SELECT event_id, device_id, reason, detail, attempts FROM realtime_dead_letters"
        " WHERE user_id = $1 ORDER BY event_id, device_id",
        user,
    )
    return [dict(row) for row in rows]


async def settled(host: asyncpg.Connection, eventually: Eventually, user: str) -> None:
    """Wait until everything of a user has reached somebody and nothing is to be sent again."""

    async def met() -> bool:
        return all(await delivered(host, user)) and not await tried(host, user)

    await eventually(met)

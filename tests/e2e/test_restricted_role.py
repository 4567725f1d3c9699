"""The main path once more, with the service as the role of ops/grants.sql and the host as its own."""

import asyncpg
import pytest

from tests.e2e.conftest import Connect, Eventually, StartServer
from tests.support import host as app
from tests.support.client import open_client
from tests.support.postgres import Database
from tests.support.roles import HOST_TABLES, as_service, role_names


@pytest.mark.parametrize("table", HOST_TABLES.split(", "))
async def test_the_service_s_role_can_neither_read_nor_write_a_table_of_the_host_s(
    house: Database, table: str
) -> None:
    """No note, no message, no entry, not even how many there are."""
    service = await asyncpg.connect(as_service(house))
    for statement in (f"SELECT count(*) FROM {table}", f"DELETE FROM {table}", f"TABLE {table}"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for table"):
            await service.execute(statement)
    await service.close()


async def test_the_main_path_needs_no_right_beyond_the_grants(
    house: Database,
    start_server: StartServer,
    connect: Connect,
    eventually: Eventually,
) -> None:
    """Replay, live events, rooms, devices, sync rows, receipts, sync over HTTP, removal, erasure, health."""
    host_role, _ = role_names(house)
    host = await asyncpg.connect(house.cluster.url(house.name, user=host_role))
    owner = await asyncpg.connect(house.url)
    user, friend = await app.add_user(host), await app.add_user(host)
    await app.log_moods(host, [user], 600)
    server = start_server(
        as_service(house),
        stale_after=0.2,
        **{f"{job}_interval": 0.2 for job in ("stale", "beat", "bells", "triggers", "erase", "housekeeping")},
    )
    await server.ready()
    phone = {"user_id": user, "device_token": f"t {user}", "platform": "ios"}
    laptop = {"user_id": user, "device_token": f"u {user}", "platform": "web"}
    for device in (phone, laptop):
        assert (await server.request("POST", "/realtime/devices", json=device)).status_code == 201

    client = await connect(server, user, device_token=f"t {user}")
    await client.got(600)
    room = await app.create_room(host, user, friend)
    await app.post_message(host, user, room)
    await app.write_entry(host, user)
    await app.queue_sync(host, user)
    await app.publish(host, user, "badge_earned", badge="first")
    events = await client.got(604)

    async def everything_is_marked() -> bool:
        return not await owner.fetchval(
            "SELECT (SELECT count(*) FROM realtime_events WHERE NOT delivered AND user_id = $1)"
            " + (SELECT count(*) FROM sync_queue WHERE NOT synced AND user_id = $1)",
            user,
        )

    await eventually(everything_is_marked)
    who = {"user_id": user, "device_token": f"u {user}"}
    action = {"key": "k", "action_type": "entry_read", "payload": {"entry_id": "e1"}}
    uploaded = await server.request("POST", "/realtime/sync", json={**who, "actions": [action]})
    synced = (await server.get("/realtime/sync", **who)).json()
    acked = await server.request("POST", "/realtime/sync/ack", json={**who, "position": synced["next"]})
    for_host = await host.fetch("SELECT payload::text, device_id FROM sync_queue WHERE key IS NOT NULL")
    letter = await owner.fetchval(
        "INSERT INTO realtime_dead_letters (event_id, user_id, device_id, reason)"
        " SELECT e.id, e.user_id, d.id, 'nacked' FROM realtime_events AS e JOIN users_devices AS d USING (user_id)"
        " WHERE e.user_id = $1 LIMIT 1 RETURNING id",
        user,
    )
    assert len((await server.get("/realtime/dead-letters", user_id=user)).json()) == 1
    redriven = await server.request("POST", f"/realtime/dead-letters/{letter}/redrive")
    assert redriven.status_code == 204
    redriven = await server.request("POST", "/realtime/dead-letters/redrive", params={"user_id": user})
    assert redriven.json() == {"redriven": 0}
    devices = (await server.get("/realtime/devices", user_id=user)).json()
    gone = await connect(server, user, device_token=f"u {user}")
    await server.request("DELETE", f"/realtime/devices/{devices[1]['id']}", params={"user_id": user})
    assert await gone.ended() == 4403
    await app.delete_user(host, user)
    assert await client.ended() == 4403

    async def everything_is_erased() -> bool:
        return not await owner.fetchval("SELECT count(*) FROM realtime_events WHERE user_id = $1", user)

    await eventually(everything_is_erased)
    health = await server.health()
    late = await open_client(server.address, user_id=friend)
    await late.got(1)
    await late.close()
    await host.close()
    await owner.close()

    assert [result["status"] for result in uploaded.json()["results"]] == ["accepted"]
    assert len(synced["messages"]) == 3, "what came after it was registered, and no sync row"
    assert acked.json() == {"marked": 0}
    assert [tuple(row) for row in for_host] == [('{"entry_id": "e1"}', devices[1]["id"])]
    assert [event["type"] for event in events[600:]] == [
        "chat_message",
        "journal_update",
        "sync",
        "badge_earned",
    ]
    assert (health["status"], health["reasons"]) == ("healthy", [])

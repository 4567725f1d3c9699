"""What the functions and triggers write, ring, refuse and erase."""

import asyncio
import json
import re
from typing import Any

import asyncpg
import pytest

from tests.support import host
from tests.support.postgres import Database

pytestmark = pytest.mark.every_major

MILLISECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def events(connection: asyncpg.Connection) -> list[tuple[str, str, dict[str, Any]]]:
    """Type, user and data of every event, in order."""
    rows = await connection.fetch("SELECT event_type, user_id, payload FROM realtime_events ORDER BY id")
    return [(row["event_type"], row["user_id"], json.loads(row["payload"])) for row in rows]


class Bells:
    """Hears the bells of some channels, as channel and payload, in the order they ring."""

    def __init__(self, listener: asyncpg.Connection) -> None:
        self._listener = listener
        self._heard: list[tuple[str, str]] = []
        self._last = asyncio.Event()

    def hear(self, _: object, __: int, channel: str, payload: str) -> None:
        """Note a bell."""
        if channel == "last":
            self._last.set()
        else:
            self._heard.append((channel, payload))

    async def until_now(self) -> list[tuple[str, str]]:
        """Everything that rang before: bells come in order, so one more of our own ends the list."""
        await self._listener.execute("NOTIFY last")
        await self._last.wait()
        return self._heard


async def listen(database: Database, *channels: str) -> Bells:
    """Listen on a connection of its own."""
    bells = Bells(listener := await database.connect())
    for channel in (*channels, "last"):
        await listener.add_listener(channel, bells.hear)
    return bells


async def test_a_mood_tells_its_score_and_never_its_note(connection: asyncpg.Connection) -> None:
    """The data of a mood is exactly the contract's."""
    await connection.execute(
        "INSERT INTO moods (user_id, score, note, tags, at)"
        " VALUES ('user123', 7, 'private', '[\"x\"]', '2025-12-07 14:18:47.8125+01')"
    )

    assert await events(connection) == [
        (
            "mood_update",
            "user123",
            {
                "event_type": "mood_logged",
                "user_id": "user123",
                "mood_score": 7,
                "timestamp": "2025-12-07T13:18:47.812Z",
            },
        )
    ]


async def test_a_message_without_a_room_goes_to_its_author(connection: asyncpg.Connection) -> None:
    """Without a room the data has the predecessor's keys and no more."""
    message_id = await host.post_message(connection, "ann")

    [(kind, user, data)] = await events(connection)
    assert (kind, user) == ("chat_message", "ann")
    assert MILLISECONDS.fullmatch(data.pop("timestamp"))
    assert data == {"event_type": "message_received", "user_id": "ann", "message_id": message_id}
    assert await connection.fetchval("SELECT room_id FROM realtime_events") is None


async def test_a_message_goes_once_to_each_current_member_and_its_author(
    connection: asyncpg.Connection,
) -> None:
    """Members who left get nothing, members who joined twice one event, and the author always has one."""
    room = await host.create_room(connection, "cleo", "bob", "bob", "dan")
    await host.leave_room(connection, room, "dan")

    message_id = await host.post_message(connection, "ann", room)

    told = await events(connection)
    assert [user for _, user, _ in told] == ["ann", "bob", "cleo"]
    for _, user, data in told:
        assert MILLISECONDS.fullmatch(data.pop("timestamp"))
        assert data == {
            "event_type": "message_received",
            "user_id": user,
            "message_id": message_id,
            "room_id": room,
            "sender_id": "ann",
        }
    rooms = await connection.fetch("SELECT DISTINCT room_id FROM realtime_events")
    assert [row["room_id"] for row in rooms] == [room]


async def test_a_journal_entry_tells_its_id(connection: asyncpg.Connection) -> None:
    """Nothing sealed leaves the entry."""
    entry_id = await host.write_entry(connection, "ann", "secret")

    [(kind, user, data)] = await events(connection)
    assert (kind, user) == ("journal_update", "ann")
    assert MILLISECONDS.fullmatch(data.pop("timestamp"))
    assert data == {"event_type": "entry_created", "user_id": "ann", "entry_id": entry_id}


@pytest.mark.parametrize("moment", ["NULL", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'294276-12-31'"])
async def test_no_time_of_the_hosts_fails_its_insert(connection: asyncpg.Connection, moment: str) -> None:
    """A time that cannot be written as a message's is replaced or shortened, and the row stands."""
    await connection.execute("ALTER TABLE moods ALTER at DROP NOT NULL")

    await connection.execute(f"INSERT INTO moods (user_id, score, at) VALUES ('ann', 5, {moment})")

    [(_, _, data)] = await events(connection)
    assert data["timestamp"].endswith("Z")


async def test_a_zoneless_time_is_utc(connection: asyncpg.Connection) -> None:
    """The session's zone does not shift what the host wrote without one."""
    await connection.execute("ALTER TABLE moods ALTER at TYPE timestamp; SET timezone = 'Asia/Tokyo'")

    await connection.execute(
        "INSERT INTO moods (user_id, score, at) VALUES ('ann', 5, '2025-12-07 13:18:47.8')"
    )

    [(_, _, data)] = await events(connection)
    assert data["timestamp"] == "2025-12-07T13:18:47.800Z"


async def test_rows_that_nobody_can_be_told_of_are_written_all_the_same(
    connection: asyncpg.Connection,
) -> None:
    """No user, an empty one, one that is too long, or a room of such a name: no event, no failure."""
    await connection.execute(
        "ALTER TABLE moods ALTER user_id DROP NOT NULL, ALTER user_id TYPE text;"
        "ALTER TABLE chat_messages ALTER user_id TYPE text, ALTER room_id TYPE text, ALTER id TYPE text;"
        "ALTER TABLE room_participants ALTER user_id TYPE text, ALTER room_id TYPE text;"
        "ALTER TABLE journal_entries ALTER user_id TYPE text, ALTER id TYPE text;"
    )
    for user in (None, "", "x" * 256):
        await host.log_mood(connection, user)
        await host.post_message(connection, user)
    for room in ("", "x" * 65):
        await host.post_message(connection, "ann", room)
    await host.join_room(connection, "room", "x" * 256)
    await connection.execute("INSERT INTO chat_messages (id, user_id) VALUES (repeat('x', 70000), 'ann')")
    await connection.execute("INSERT INTO journal_entries (id, user_id) VALUES (repeat('x', 70000), 'ann')")
    await connection.execute("INSERT INTO journal_entries (id, user_id) VALUES ('e', '')")

    assert await events(connection) == []
    assert await connection.fetchval("SELECT count(*) FROM chat_messages") == 3 + 2 + 1

    await host.post_message(connection, "ann", "room")
    assert [user for _, user, _ in await events(connection)] == ["ann"]


async def test_a_host_publishes_events_of_its_own(connection: asyncpg.Connection) -> None:
    """What it gives is what is stored; the id comes back."""
    event_id = await connection.fetchval(
        "SELECT realtime_publish('ann', 'badge_earned', '{\"badge\": 3}', collapse_key => 'badge',"
        ' trace => \'{"traceparent": "00"}\')'
    )

    row = await connection.fetchrow("SELECT * FROM realtime_events")
    assert (row["id"], row["event_type"], row["user_id"]) == (event_id, "badge_earned", "ann")
    assert json.loads(row["payload"]) == {"badge": 3}
    assert (row["collapse_key"], json.loads(row["trace"])) == ("badge", {"traceparent": "00"})
    assert (row["delivered"], row["attempts"], row["settled_as"], row["room_id"]) == (False, 0, None, None)


async def test_only_chat_events_take_their_room_from_the_payload(connection: asyncpg.Connection) -> None:
    """On other channels room_id is data like any other."""
    for channel in ("chat_events", "realtime_events"):
        await connection.execute(
            "SELECT realtime_publish('ann', 'typing', '{\"room_id\": \"garden\"}', $1)", channel
        )

    rooms = await connection.fetch("SELECT room_id FROM realtime_events ORDER BY id")
    assert [row["room_id"] for row in rooms] == ["garden", None]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("NULL, 'x', '{}'", "user_id must have 1 to 255 characters"),
        ("'', 'x', '{}'", "user_id must have 1 to 255 characters"),
        ("repeat('x', 256), 'x', '{}'", "user_id must have 1 to 255 characters"),
        ("'ann', NULL, '{}'", "event_type must have 1 to 50 characters"),
        ("'ann', repeat('x', 51), '{}'", "event_type must have 1 to 50 characters"),
        ("'ann', 'token_expiring', '{}'", "'token_expiring' is reserved"),
        ("'ann', 'sync', '{}'", "'sync' is reserved"),
        ("'ann', 'x', NULL", "payload must be a JSON object"),
        ("'ann', 'x', '[1]'", "payload must be a JSON object"),
        ("'ann', 'x', jsonb_build_object('x', repeat('x', 65536))", "payload has 65545 bytes"),
        ("'ann', 'x', '{}', 'sync_events'", "there is no channel 'sync_events'"),
        ("'ann', 'x', '{}', NULL", "there is no channel NULL"),
        ("'ann', 'x', '{}', 'chat; DROP TABLE users'", "there is no channel"),
        ("'ann', 'x', '{\"room_id\": \"\"}', 'chat_events'", "payload.room_id must have 1 to 64"),
        ("'ann', 'x', '{}', collapse_key => ''", "collapse_key must have 1 to 255 characters"),
        ("'ann', 'x', '{}', trace => '7'", "trace must be a JSON object"),
    ],
)
async def test_what_could_not_be_delivered_is_refused_with_a_hint(
    connection: asyncpg.Connection, arguments: str, complaint: str
) -> None:
    """The host's developer reads what is wrong and what to do."""
    with pytest.raises(asyncpg.InvalidParameterValueError, match=re.escape(complaint)) as refusal:
        await connection.execute(f"SELECT realtime_publish({arguments})")

    assert refusal.value.hint


async def test_the_longest_of_everything_is_accepted(connection: asyncpg.Connection) -> None:
    """Limits are inclusive, in characters where they are told in characters."""
    await connection.execute(
        "SELECT realtime_publish(repeat('\U0001f33b', 255), repeat('\U0001f33b', 50),"
        " jsonb_build_object('x', repeat('x', 65536 - 9)), collapse_key => repeat('\U0001f33b', 255))"
    )


async def test_every_kind_of_row_rings_its_own_bell(database: Database) -> None:
    """A bell tells whose row it is and nothing else."""
    connection = await database.connect()
    await host.add_user(connection, "ann")
    bells = await listen(
        database, "mood_events", "chat_events", "journal_events", "sync_events", "realtime_events"
    )

    await host.log_mood(connection, "ann")
    await host.post_message(connection, "ann")
    await host.write_entry(connection, "ann")
    await host.queue_sync(connection, "ann")
    await host.publish(connection, "ann", "badge_earned")
    await host.delete_user(connection, "ann")

    told = [(channel, json.loads(payload)) for channel, payload in await bells.until_now()]
    assert told == [
        (channel, {"user_id": "ann"})
        for channel in (
            "mood_events",
            "chat_events",
            "journal_events",
            "sync_events",
            "realtime_events",
            "realtime_events",
        )
    ]


async def test_a_bulk_insert_rings_a_hundred_bells_and_one(database: Database) -> None:
    """After a hundred users the bell no longer says whose; the next transaction counts anew."""
    connection = await database.connect()
    bells = await listen(database, "mood_events")

    await host.log_moods(connection, [f"user-{n}" for n in range(300)], 300)
    await host.log_mood(connection, "ann")

    payloads = [payload for _, payload in await bells.until_now()]
    assert len(payloads) == 100 + 1 + 1
    assert payloads[100] == "{}"
    assert json.loads(payloads[101]) == {"user_id": "ann"}


async def test_bells_fall_silent_when_no_process_renews_the_lease(database: Database) -> None:
    """Rows are written as ever; they ring again as soon as somebody is about to sleep."""
    connection = await database.connect()
    bells = await listen(database, "mood_events")
    lease = "SELECT setval('realtime_ring_until', (extract(epoch FROM now()) * 1000)::bigint + $1)"

    await connection.execute(lease, -1)
    await host.log_mood(connection, "ann")
    await connection.execute(lease, 60_000)
    await host.log_mood(connection, "bob")

    assert [json.loads(told) for _, told in await bells.until_now()] == [{"user_id": "bob"}]
    assert len(await events(connection)) == 2


async def test_a_transaction_may_switch_its_bells_off(database: Database) -> None:
    """The row is found by the sweep."""
    connection = await database.connect()
    bells = await listen(database, "mood_events")

    async with connection.transaction():
        await connection.execute("SET LOCAL realtime.bells = 'off'")
        await host.log_mood(connection, "ann")
    await host.log_mood(connection, "bob")

    assert [json.loads(told) for _, told in await bells.until_now()] == [{"user_id": "bob"}]


async def test_rubbish_in_our_settings_fails_no_insert(connection: asyncpg.Connection) -> None:
    """Anybody may set a setting; nothing of ours stumbles over it."""
    for value in ("rubbish", "-1", "999999999999", ""):
        await connection.execute(
            "SELECT set_config('realtime.rung', $1, false), set_config('realtime.bells', $1, false)", value
        )
        await host.log_mood(connection, "ann")

    assert len(await events(connection)) == 4


async def test_deleting_a_user_commands_every_process(connection: asyncpg.Connection) -> None:
    """One command for the user and one for each device, in the transaction of the deletion."""
    await host.add_user(connection, "ann")
    device_id = await connection.fetchval(
        "INSERT INTO users_devices (user_id, device_token, platform) VALUES ('ann', 't', 'ios') RETURNING id"
    )
    await host.queue_sync(connection, "ann")

    await host.delete_user(connection, "ann")

    commands = await connection.fetch("SELECT kind, user_id, device_id FROM realtime_commands ORDER BY kind")
    assert [tuple(row) for row in commands] == [
        ("device_removed", "ann", device_id),
        ("user_deleted", "ann", None),
    ]
    assert await connection.fetchval("SELECT count(*) FROM sync_queue") == 0


async def test_a_device_that_changes_hands_is_commanded_away_from_its_old_owner(
    connection: asyncpg.Connection,
) -> None:
    """Nothing is commanded when the same owner is written again."""
    for user in ("ann", "bob"):
        await host.add_user(connection, user)
    await connection.execute(
        "INSERT INTO users_devices (user_id, device_token, platform) VALUES ('ann', 't', 'ios')"
    )

    await connection.execute("UPDATE users_devices SET user_id = 'ann', last_active = now()")
    assert await connection.fetchval("SELECT count(*) FROM realtime_commands") == 0
    await connection.execute("UPDATE users_devices SET user_id = 'bob'")

    commands = await connection.fetch("SELECT kind, user_id FROM realtime_commands")
    assert [tuple(row) for row in commands] == [("device_removed", "ann")]


async def test_a_host_may_change_a_users_id(connection: asyncpg.Connection) -> None:
    """Devices and sync rows follow, instead of failing the host's update."""
    await host.add_user(connection, "ann")
    await host.queue_sync(connection, "ann")
    await connection.execute(
        "INSERT INTO users_devices (user_id, device_token, platform) VALUES ('ann', 't', 'ios')"
    )

    await connection.execute("UPDATE users SET id = 'anna' WHERE id = 'ann'")

    assert await connection.fetchval("SELECT user_id FROM sync_queue") == "anna"
    assert await connection.fetchval("SELECT user_id FROM users_devices") == "anna"


async def test_a_user_is_erased_until_there_is_one_of_that_id_again(connection: asyncpg.Connection) -> None:
    """A user who never was is not erased, nor one who came back."""
    erased = "SELECT realtime_user_erased('ann')"
    assert not await connection.fetchval(erased)

    await host.add_user(connection, "ann")
    await host.delete_user(connection, "ann")
    assert await connection.fetchval(erased)

    await host.add_user(connection, "ann")
    assert not await connection.fetchval(erased)


async def test_erasure_goes_in_batches_and_ends(connection: asyncpg.Connection) -> None:
    """Everything of the deleted user goes, nothing of others, never more than a batch at a time."""
    for user in ("ann", "bob"):
        await host.add_user(connection, user)
    await host.log_moods(connection, ["ann", "bob"], 20)
    await connection.execute(
        "INSERT INTO realtime_dead_letters (event_id, user_id, reason)"
        " SELECT id, user_id, 'expired' FROM realtime_events ORDER BY id LIMIT 4"
    )
    await host.delete_user(connection, "ann")
    await host.log_mood(connection, "ann")

    calls, after_id = [], 0
    while after_id is not None:
        removed, after_id = await connection.fetchrow("SELECT * FROM realtime_erase(5, $1)", after_id)
        calls.append(removed)

    assert calls == [5, 5, 3]
    assert {user for _, user, _ in await events(connection)} == {"bob"}
    assert await connection.fetchval("SELECT array_agg(user_id) FROM realtime_dead_letters") == ["bob", "bob"]


async def test_erasure_takes_what_was_to_be_sent_again(connection: asyncpg.Connection) -> None:
    """A deletion does not count as seen to before it is gone, and others keep theirs."""
    for user in ("ann", "bob"):
        await host.add_user(connection, user)
        await connection.execute(
            "INSERT INTO realtime_redeliveries (event_id, user_id) VALUES (nextval('realtime_id_seq'), $1)",
            user,
        )
    await host.delete_user(connection, "ann")
    erased = "SELECT detail -> 'erased' FROM realtime_commands WHERE kind = 'user_deleted'"

    await connection.execute("SELECT realtime_erase(0, 0)")
    await connection.execute("SELECT realtime_erase(0, 0)")
    assert await connection.fetchval(erased) is None
    while await connection.fetchval(erased) is None:
        await connection.execute("SELECT realtime_erase(100, 0)")

    assert await connection.fetchval("SELECT array_agg(user_id) FROM realtime_redeliveries") == ["bob"]


async def test_erasure_spares_what_a_returned_user_got_since(connection: asyncpg.Connection) -> None:
    """The same id may belong to somebody else now; only older rows go."""
    await host.add_user(connection, "ann")
    await host.log_mood(connection, "ann", 1)
    await host.delete_user(connection, "ann")
    await host.add_user(connection, "ann")
    await host.log_mood(connection, "ann", 2)

    assert await connection.fetchval("SELECT removed FROM realtime_erase(100, 0)") == 1
    assert [data["mood_score"] for _, _, data in await events(connection)] == [2]


async def test_erasure_does_not_wait_for_locked_rows(database: Database) -> None:
    """A row in somebody's hands is skipped and goes with the next run."""
    connection, other = await database.connect(), await database.connect()
    await host.add_user(connection, "ann")
    await host.log_moods(connection, ["ann"], 3)
    await host.delete_user(connection, "ann")

    async with other.transaction():
        await other.execute("SELECT FROM realtime_events ORDER BY id LIMIT 1 FOR UPDATE")
        assert await connection.fetchval("SELECT removed FROM realtime_erase(100, 0)") == 2
    assert await connection.fetchval("SELECT removed FROM realtime_erase(100, 0)") == 1


async def test_membership_is_asked_as_it_is_now(connection: asyncpg.Connection) -> None:
    """Joined, left, joined again, removed; what is of no room is for its user always."""
    room = await host.create_room(connection, "ann", "bob")
    await host.post_message(connection, "bob", room)
    await host.log_mood(connection, "ann")
    of = {
        (row["user_id"], row["room_id"] is not None): row["id"]
        for row in await connection.fetch("SELECT id, user_id, room_id FROM realtime_events")
    }

    async def seen() -> set[int]:
        return {row[0] for row in await connection.fetch("SELECT realtime_may_see($1)", [*of.values(), 0])}

    without_ann = set(of.values()) - {of["ann", True]}
    assert await seen() == set(of.values())
    await host.leave_room(connection, room, "ann")
    assert await seen() == without_ann
    await host.join_room(connection, room, "ann")
    assert await seen() == set(of.values())
    await connection.execute("DELETE FROM room_participants WHERE user_id = 'ann'")
    assert await seen() == without_ann


async def test_an_author_keeps_what_he_posted_to_a_room_he_never_was_in(
    connection: asyncpg.Connection,
) -> None:
    """And loses sight of it when he has been in it and left."""
    room = await host.create_room(connection)
    await host.post_message(connection, "ann", room)
    event = await connection.fetchval("SELECT id FROM realtime_events")
    sees = "SELECT count(*) FROM realtime_may_see(ARRAY[$1::bigint])"
    assert await connection.fetchval(sees, event) == 1
    await host.join_room(connection, room, "ann")
    assert await connection.fetchval(sees, event) == 1
    await host.leave_room(connection, room, "ann")
    assert await connection.fetchval(sees, event) == 0


async def test_leaving_a_room_is_a_command(connection: asyncpg.Connection) -> None:
    """By an update or a deletion, once; a change of anything else is none."""
    room = await host.create_room(connection, "ann", "bob", "cleo")
    await connection.execute("UPDATE room_participants SET joined_at = now(), left_at = NULL")
    await host.leave_room(connection, room, "ann")
    await connection.execute("UPDATE room_participants SET left_at = now() WHERE user_id = 'ann'")
    await connection.execute("DELETE FROM room_participants WHERE user_id IN ('ann', 'bob')")
    await connection.execute("UPDATE room_participants SET room_id = 'elsewhere' WHERE user_id = 'cleo'")
    commands = await connection.fetch("SELECT kind, user_id, room_id FROM realtime_commands ORDER BY id")
    assert [tuple(row) for row in commands] == [
        ("left_room", "ann", room),
        ("left_room", "bob", room),
        ("left_room", "cleo", room),
    ]


async def test_a_letter_for_a_whole_user_is_written_once(connection: asyncpg.Connection) -> None:
    """No device is a device of its own kind: the second letter for it is refused."""
    letter = "INSERT INTO realtime_dead_letters (event_id, reason) VALUES (1, 'expired')"
    await connection.execute(letter)

    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(letter)

"""The host's writes are never blocked, deadlocked or failed by us; each test beside a control that shows the hazard.

No service runs in these tests: it is down, and the start value of the bells' lease says that they ring.
"""

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.conftest import NewCluster, NewDatabase
from tests.support import host
from tests.support.postgres import Database

ENFORCED_KEY = (
    "ALTER TABLE realtime_events ADD CONSTRAINT enforced FOREIGN KEY (user_id) REFERENCES users (id)"
    " ON DELETE CASCADE"
)
PLAIN_BELL = """
    CREATE FUNCTION plain_bell() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('moods', NEW.id || repeat('x', 100));
        RETURN NULL;
    END $$;
    CREATE TRIGGER trigger_mood_realtime AFTER INSERT ON moods FOR EACH ROW EXECUTE FUNCTION plain_bell()
"""
IMPATIENT = "SET lock_timeout = '1s'"


async def room_of_two(database: Database) -> str:
    """A room whose members ann and bob are users."""
    connection = await database.connect()
    for user in ("ann", "bob"):
        await host.add_user(connection, user)
    return await host.create_room(connection, "ann", "bob")


async def post_while_bob_is_locked(database: Database, room: str) -> None:
    """Ann posts in the room while another session holds bob's row of users FOR UPDATE."""
    holder, author = await database.connect(), await database.connect()
    await author.execute(IMPATIENT)
    async with holder.transaction():
        await holder.execute("SELECT FROM users WHERE id = 'bob' FOR UPDATE")
        await host.post_message(author, "ann", room)


@pytest.mark.every_major
async def test_a_message_does_not_wait_for_a_members_locked_row(database: Database) -> None:
    """What another session does to a member of the room is not the author's business."""
    await post_while_bob_is_locked(database, await room_of_two(database))

    connection = await database.connect()
    assert await connection.fetchval("SELECT count(*) FROM realtime_events") == 2


async def test_an_enforced_key_makes_a_message_wait_for_a_members_row(database: Database) -> None:
    """The control: with a real key to users the insert takes KEY SHARE on every member's row."""
    room = await room_of_two(database)
    await (await database.connect()).execute(ENFORCED_KEY)

    with pytest.raises(asyncpg.LockNotAvailableError):
        await post_while_bob_is_locked(database, room)


async def both_lock_themselves_and_post(database: Database, room: str) -> None:
    """Ann's and bob's hosts each lock their own user, and then both post in the room."""
    locked = asyncio.Barrier(2)

    async def post(user: str) -> None:
        connection = await database.connect()
        async with connection.transaction():
            await connection.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", user)
            await locked.wait()
            await host.post_message(connection, user, room)

    outcomes = await asyncio.gather(post("ann"), post("bob"), return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


@pytest.mark.every_major
async def test_two_hosts_that_lock_their_own_user_post_in_one_room(database: Database) -> None:
    """Neither touches the other's row, so there is nothing to deadlock on."""
    await both_lock_themselves_and_post(database, await room_of_two(database))

    connection = await database.connect()
    assert await connection.fetchval("SELECT count(*) FROM realtime_events") == 4


async def test_an_enforced_key_makes_two_hosts_deadlock(database: Database) -> None:
    """The control: the fan-out of each wants the row the other has locked."""
    room = await room_of_two(database)
    await (await database.connect()).execute(ENFORCED_KEY)

    with pytest.raises(asyncpg.DeadlockDetectedError):
        await both_lock_themselves_and_post(database, room)


async def post_while_bob_is_deleted(database: Database, room: str) -> None:
    """Bob's user is deleted, not yet committed, when ann posts."""
    remover, author = await database.connect(), await database.connect()
    async with remover.transaction():
        await host.delete_user(remover, "bob")
        posting = asyncio.create_task(host.post_message(author, "ann", room))
        # With an enforced key the author waits here and fails when the deletion commits.
        await asyncio.wait([posting], timeout=1)
    await posting


@pytest.mark.every_major
async def test_a_member_may_be_deleted_while_a_message_is_posted(database: Database) -> None:
    """The message is posted; what was meant for the deleted member is erased."""
    room = await room_of_two(database)

    await post_while_bob_is_deleted(database, room)

    connection = await database.connect()
    assert await connection.fetchval("SELECT removed FROM realtime_erase(100, 0)") == 1
    assert await connection.fetchval("SELECT array_agg(user_id) FROM realtime_events") == ["ann"]


async def test_an_enforced_key_fails_the_message_when_a_member_is_deleted(database: Database) -> None:
    """The control: the author pays for somebody else's deletion."""
    room = await room_of_two(database)
    await (await database.connect()).execute(ENFORCED_KEY)

    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await post_while_bob_is_deleted(database, room)


@pytest.mark.every_major
async def test_a_deletion_does_not_wait_for_a_message_in_the_making(database: Database) -> None:
    """Nor does the open transaction of an author hold up whoever deletes a member."""
    room = await room_of_two(database)
    author, remover = await database.connect(), await database.connect()
    await remover.execute(IMPATIENT)

    async with author.transaction():
        await host.post_message(author, "ann", room)
        await host.delete_user(remover, "bob")

    assert await remover.fetchval("SELECT removed FROM realtime_erase(100, 0)") == 1


@pytest.fixture
async def tight_database(private_cluster: NewCluster, new_database: NewDatabase, major: int) -> Database:
    """A database on a server with the smallest queue for bells there is."""
    if major < 17:
        pytest.skip("the size of the queue is fixed before PostgreSQL 17")
    return await new_database(private_cluster(options={"max_notify_queue_pages": "64", "fsync": "off"}))


async def listen_in_a_transaction(database: Database) -> asyncpg.Connection:
    """A stranger's session that listens to something and then sits in a transaction."""
    stranger = await database.connect()
    await stranger.execute("LISTEN something")
    await stranger.execute("BEGIN")
    await stranger.execute("SELECT 1")
    return stranger


async def log_twenty_thousand_moods(database: Database) -> None:
    """Each in a transaction of its own, over four connections."""

    async def log(number: int) -> None:
        connection = await database.connect()
        await connection.execute("SET synchronous_commit = off")
        statement = await connection.prepare("INSERT INTO moods (user_id, score) VALUES ($1, 7)")
        for n in range(5000):
            await statement.fetch(f"user-{number}-{n}")

    await asyncio.gather(*(log(number) for number in range(4)))


async def test_a_stranger_that_listens_in_a_transaction_fails_no_insert(tight_database: Database) -> None:
    """Bells stop at half a queue; the rows are all written, and bells ring again once the stranger has gone."""
    stranger = await listen_in_a_transaction(tight_database)

    await log_twenty_thousand_moods(tight_database)

    connection = await tight_database.connect()
    assert await connection.fetchval("SELECT count(*) FROM realtime_events") == 20_000
    assert 0.4 < await connection.fetchval("SELECT pg_notification_queue_usage()") < 0.6

    await stranger.close()
    heard = asyncio.Event()
    listener = await tight_database.connect()
    await listener.add_listener("mood_events", lambda *_: heard.set())
    await host.log_mood(connection, "ann")
    await heard.wait()


async def test_a_plain_notify_fails_inserts_when_a_stranger_listens_in_a_transaction(
    tight_database: Database,
) -> None:
    """The control: the predecessor's way fills the queue, and then every notifying commit fails."""
    owner = await tight_database.connect()
    await owner.execute(f"DROP TRIGGER trigger_mood_realtime ON moods; {PLAIN_BELL}")
    await listen_in_a_transaction(tight_database)

    with pytest.raises(asyncpg.PostgresError, match="too many notifications in the NOTIFY queue"):
        await log_twenty_thousand_moods(tight_database)


async def prepare(connection: asyncpg.Connection, name: str, *statements: str) -> None:
    """Write a mood and prepare the transaction for a two-phase commit."""
    await connection.execute("BEGIN")
    try:
        for statement in statements:
            await connection.execute(statement)
        await host.log_mood(connection, "ann")
        await connection.execute(f"PREPARE TRANSACTION '{name}'")
    except asyncpg.PostgresError:
        await connection.execute("ROLLBACK")
        raise


@pytest.mark.every_major
async def test_a_two_phase_commit_works_with_its_bells_off(database: Database) -> None:
    """The event comes with the second phase."""
    connection = await database.connect()

    await prepare(connection, database.name, "SET LOCAL realtime.bells = 'off'")
    assert await connection.fetchval("SELECT count(*) FROM realtime_events") == 0
    await connection.execute(f"COMMIT PREPARED '{database.name}'")

    assert await connection.fetchval("SELECT count(*) FROM realtime_events") == 1


@pytest.mark.every_major
async def test_a_two_phase_commit_fails_when_a_bell_rings(database: Database) -> None:
    """The control: PostgreSQL refuses to prepare what has notified."""
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="NOTIFY"):
        await prepare(await database.connect(), database.name)


@pytest.mark.every_major
async def test_the_longest_user_id_is_written_everywhere(database: Database) -> None:
    """255 characters of four bytes each fit the row, the event and the bell."""
    user = "\U0001f33b" * 255
    connection, listener = await database.connect(), await database.connect()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    await listener.add_listener("chat_events", lambda *told: heard.put_nowait(told[-1]))
    await host.add_user(connection, user)
    room = await host.create_room(connection, user, room_id="\U0001f33b" * 64)

    await host.log_mood(connection, user)
    await host.post_message(connection, user, room)
    await host.write_entry(connection, user)
    await host.queue_sync(connection, user)
    await host.delete_user(connection, user)

    assert user in await heard.get()
    assert await connection.fetchval("SELECT count(*) FROM realtime_events WHERE user_id = $1", user) == 3
    assert await connection.fetchval("SELECT user_id FROM realtime_commands") == user


async def test_a_payload_beyond_the_limit_of_notify_fails_the_row(database: Database) -> None:
    """The control: a trigger that puts the data in the bell fails the host's insert."""
    connection = await database.connect()
    await connection.execute(
        f"DROP TRIGGER trigger_mood_realtime ON moods; {PLAIN_BELL}".replace("100", "8000")
    )

    with pytest.raises(asyncpg.InvalidParameterValueError, match="payload string too long"):
        await host.log_mood(connection, "ann")

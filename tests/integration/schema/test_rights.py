"""Who may do what: hosts that only write their tables, the roles of ops/grants.sql, and forgers."""

import os
import subprocess

import asyncpg
import pytest

from tests.integration.schema.conftest import Role
from tests.support import host
from tests.support.postgres import ROOT, Database

pytestmark = pytest.mark.every_major

OUR_TABLES = (
    "realtime_events",
    "sync_queue",
    "users_devices",
    "realtime_commands",
    "realtime_processes",
    "realtime_dead_letters",
    "realtime_redeliveries",
    "realtime_reporters",
    "realtime_tickets",
    "realtime_incarnation",
    "realtime_ancestors",
    "realtime_retention",
    "realtime_delivery",
)
CALLS = (
    "realtime_publish('ann', 'badge', '{}')",
    "realtime_wake('mood_events', 'ann')",
    "realtime_erase(10, 0)",
    "realtime_is_redrivable(1, 1)",
    "realtime_list_dead_letters()",
    "realtime_redrive(1)",
    "realtime_redrive_all('ann')",
    "realtime_disconnect('ann')",
    "realtime_user_erased('ann')",
    "realtime_may_see('{1}')",
    "realtime_timestamp(now())",
    "realtime_timestamp(localtimestamp)",
    "setval('realtime_ring_until', 1)",
    "nextval('realtime_id_seq')",
)
MAY_WRITE = """
SELECT bool_and(has_table_privilege($1, $2, privilege))
FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege"""
TRIGGER_FUNCTIONS = (
    "notify_mood_event",
    "notify_chat_event",
    "notify_journal_event",
    "notify_sync_event",
    "notify_user_deleted",
    "notify_room_left",
    "notify_device_removed",
)


def grant(database: Database, host_role: str, service_role: str, operator_role: str | None = None) -> None:
    """Run ops/grants.sql as its head says."""
    operator = () if operator_role is None else ("-v", f"operator_role={operator_role}")
    subprocess.run(
        [
            database.cluster.binaries.program("psql"),
            *("-Xq", "-d", database.url, "-f", ROOT / "ops" / "grants.sql"),
            *("-v", f"host_role={host_role}", "-v", f"service_role={service_role}"),
            *operator,
        ],
        check=True,
        env={**os.environ, "PGOPTIONS": ""},
    )


@pytest.fixture
async def mood_writer(database: Database, new_role: Role) -> asyncpg.Connection:
    """A host that may insert moods, make temporary tables, and nothing else."""
    owner = await database.connect()
    role = await new_role("moods")
    await owner.execute(f"GRANT INSERT ON moods TO {role}; GRANT USAGE ON moods_id_seq TO {role}")
    return await database.connect(user=role)


async def test_a_role_that_may_only_insert_moods_causes_events(
    database: Database, mood_writer: asyncpg.Connection
) -> None:
    """Firing a trigger needs no right on what the trigger does."""
    await mood_writer.execute("INSERT INTO moods (user_id, score) VALUES ('ann', 7)")

    owner = await database.connect()
    assert await owner.fetchval("SELECT user_id FROM realtime_events") == "ann"


@pytest.mark.parametrize("table", OUR_TABLES)
async def test_a_host_can_neither_read_nor_write_our_tables(
    mood_writer: asyncpg.Connection, table: str
) -> None:
    """The outbox is closed to who is not granted to."""
    statements = [f"SELECT FROM {table}"]
    if table != "realtime_delivery":  # a view that nobody can write
        statements += [f"DELETE FROM {table}", f"INSERT INTO {table} DEFAULT VALUES"]
    for statement in statements:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await mood_writer.execute(statement)


@pytest.mark.parametrize("call", CALLS)
async def test_a_host_cannot_call_our_functions(mood_writer: asyncpg.Connection, call: str) -> None:
    """Nor move our sequences."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await mood_writer.execute(f"SELECT {call}")


@pytest.mark.parametrize("function", TRIGGER_FUNCTIONS)
async def test_our_trigger_functions_cannot_be_hung_on_a_temporary_table(
    mood_writer: asyncpg.Connection, function: str
) -> None:
    """Otherwise anybody would forge events by inserting into a table of their own."""
    await mood_writer.execute("CREATE TEMP TABLE forged (id text, user_id text, score int, at timestamptz)")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await mood_writer.execute(
            f"CREATE TRIGGER forge AFTER INSERT ON forged FOR EACH ROW EXECUTE FUNCTION {function}()"
        )


async def test_a_function_that_everybody_may_call_can_be_hung_on_a_temporary_table(
    database: Database, mood_writer: asyncpg.Connection
) -> None:
    """The control of the test above: it is the missing right that stops the forger."""
    owner = await database.connect()
    await owner.execute("GRANT EXECUTE ON FUNCTION notify_mood_event() TO PUBLIC")
    await mood_writer.execute("CREATE TEMP TABLE forged (user_id text, score int, at timestamptz)")

    await mood_writer.execute(
        "CREATE TRIGGER forge AFTER INSERT ON forged FOR EACH ROW EXECUTE FUNCTION notify_mood_event()"
    )
    await mood_writer.execute("INSERT INTO forged VALUES ('victim', 1, now())")

    assert await owner.fetchval("SELECT user_id FROM realtime_events") == "victim"


async def test_a_temporary_table_of_the_same_name_swallows_no_event(
    database: Database, mood_writer: asyncpg.Connection
) -> None:
    """A session's own realtime_events, realtime_ring_until or room_participants is never meant."""
    await mood_writer.execute(
        "CREATE TEMP TABLE realtime_events (id bigint, event_type text, user_id text, payload jsonb, room_id text,"
        " collapse_key text, trace jsonb); CREATE TEMP TABLE realtime_ring_until (last_value bigint)"
    )

    await mood_writer.execute("INSERT INTO moods (user_id, score) VALUES ('ann', 7)")

    owner = await database.connect()
    assert await owner.fetchval("SELECT count(*) FROM public.realtime_events") == 1
    assert await mood_writer.fetchval("SELECT count(*) FROM pg_temp.realtime_events") == 0


async def test_functions_of_the_hosts_own_are_never_called_by_ours(
    database: Database, new_role: Role
) -> None:
    """A search_path that leads to look-alikes of built-in or of our functions changes nothing."""
    owner = await database.connect()
    role = await new_role("tricky")
    await owner.execute(
        f"GRANT INSERT ON moods TO {role}; GRANT USAGE ON moods_id_seq TO {role};"
        f"CREATE SCHEMA {role} AUTHORIZATION {role}"
    )
    tricky = await database.connect(user=role)
    for signature, result in (
        ("to_char(timestamp, text) RETURNS text", "'stolen'"),
        ("isfinite(timestamptz) RETURNS boolean", "false"),
        ("realtime_timestamp(timestamptz) RETURNS text", "'stolen'"),
        ("realtime_wake(text, VARIADIC text[]) RETURNS boolean", "1 / 0 = 1"),
        ("length(text) RETURNS integer", "1 / 0"),
        ('jsonb_build_object(VARIADIC "any") RETURNS jsonb', None),
    ):
        if result is not None:
            await tricky.execute(f"CREATE FUNCTION {role}.{signature} LANGUAGE sql AS $$ SELECT {result} $$")
    await tricky.execute(f"SET search_path = {role}, pg_catalog, public")

    await tricky.execute("INSERT INTO public.moods (user_id, score, at) VALUES ('ann', 7, '2025-12-07Z')")

    assert "2025-12-07T00:00:00.000Z" in await owner.fetchval("SELECT payload FROM realtime_events")


async def test_the_grants_let_a_host_publish_and_queue_and_nothing_else(
    database: Database, new_role: Role
) -> None:
    """It reads what devices upload, but cannot choose what decides when a row is seen."""
    host_role = await new_role("host")
    grant(database, host_role, await new_role("service"))
    owner, api = await database.connect(), await database.connect(user=host_role)
    await host.add_user(owner, "ann")

    await host.publish(api, "ann", "badge_earned", badge=3)
    await host.queue_sync(api, "ann")
    await api.execute(
        "INSERT INTO sync_queue (user_id, action_type, payload, key) VALUES ('ann', 'a', '{}', 'k')"
        " ON CONFLICT (user_id, key) WHERE key IS NOT NULL DO NOTHING"
    )
    await api.execute("SELECT user_id, action_type, payload, device_id, key FROM sync_queue ORDER BY id")

    for statement in (
        "SELECT FROM realtime_events",
        "SELECT xid FROM sync_queue",
        "INSERT INTO sync_queue (user_id, action_type, payload, xid) VALUES ('ann', 'a', '{}', '3')",
        "UPDATE sync_queue SET synced = true",
        "SELECT setval('realtime_id_seq', 1)",
        "SELECT realtime_erase(1, 0)",
        "SELECT realtime_list_dead_letters()",
        "SELECT realtime_redrive(1)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await api.execute(statement)


async def test_the_grants_let_the_service_work_without_any_right_on_host_tables(
    database: Database, new_role: Role
) -> None:
    """Its own tables, sequences and functions, and not one row of the host's."""
    service_role = await new_role("service")
    grant(database, await new_role("host"), service_role)
    owner, service = await database.connect(), await database.connect(user=service_role)
    await host.add_user(owner, "ann")
    await host.log_mood(owner, "ann")

    await service.execute(
        "INSERT INTO users_devices (user_id, device_token, platform) VALUES ('ann', 't', 'ios')"
        " ON CONFLICT (device_token) DO UPDATE SET last_active = now()"
    )
    await service.execute("SELECT FROM realtime_events ORDER BY id FOR UPDATE SKIP LOCKED")
    await service.execute("UPDATE realtime_events SET delivered = true, delivered_at = now()")
    await service.execute("INSERT INTO realtime_incarnation DEFAULT VALUES")
    await service.execute("INSERT INTO realtime_commands (kind, user_id) VALUES ('disconnect', 'ann')")
    await service.execute("INSERT INTO realtime_processes (id, host, pid) VALUES (gen_random_uuid(), 'h', 1)")
    await service.execute("INSERT INTO realtime_dead_letters (event_id, reason) VALUES (1, 'expired')")
    await service.execute(
        "INSERT INTO realtime_ancestors VALUES (1, 1); UPDATE realtime_retention SET single = true"
    )
    for table in set(OUR_TABLES) - {"realtime_delivery"}:
        assert await owner.fetchval(MAY_WRITE, service_role, table), table
    await service.execute("SELECT FROM realtime_delivery; SELECT FROM realtime_alembic_version")
    await service.execute("DELETE FROM realtime_events")
    for call in CALLS:
        await service.execute(f"SELECT {call}")
    await service.execute("SELECT last_value FROM realtime_ring_until")
    await service.execute("SELECT (pg_control_system()).system_identifier")

    for table in ("users", "moods", "chat_messages", "journal_entries", "room_participants", "chat_rooms"):
        for statement in (
            f"SELECT FROM {table}",
            f"INSERT INTO {table} DEFAULT VALUES",
            f"DELETE FROM {table}",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await service.execute(statement)


async def test_an_operator_lists_and_redrives_and_sees_nothing_else(
    database: Database, new_role: Role
) -> None:
    """The role of its own that ops/grants.sql gives when it is told one."""
    operator_role = await new_role("operator")
    grant(database, await new_role("host"), await new_role("service"), operator_role)
    operator = await database.connect(user=operator_role)

    for call in ("realtime_list_dead_letters()", "realtime_redrive(1)", "realtime_redrive_all('ann')"):
        await operator.execute(f"SELECT {call}")
    await operator.execute("SELECT FROM realtime_delivery")

    for statement in (
        *(f"SELECT FROM {table}" for table in OUR_TABLES if table != "realtime_delivery"),
        "SELECT realtime_publish('ann', 'badge', '{}')",
        "SELECT realtime_erase(1, 0)",
        "SELECT FROM users",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await operator.execute(statement)


async def test_the_grants_can_be_given_again(database: Database, new_role: Role) -> None:
    """After every migration they are simply run once more."""
    roles = await new_role("host"), await new_role("service")

    grant(database, *roles)
    grant(database, *roles)


async def test_every_function_of_ours_is_closed_and_fixed(database: Database) -> None:
    """No function is left to PUBLIC, and each that runs as its owner has its own search_path."""
    connection = await database.connect()

    rows = await connection.fetch(
        "SELECT proname, prosecdef, proconfig, has_function_privilege('public', oid, 'EXECUTE') AS open"
        " FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    )

    assert len(rows) == 19
    assert not any(row["open"] for row in rows)
    for row in rows:
        if row["prosecdef"]:
            assert "search_path=public, pg_temp" in row["proconfig"]
        else:
            assert row["proname"] == "realtime_timestamp"

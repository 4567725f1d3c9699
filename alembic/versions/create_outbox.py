"""Create the outbox, the sync queue and the devices, or adopt the predecessor's tables of these names."""

import adoption
import catalog
import gently
from adoption import Wanted

revision = "create_outbox"
down_revision = "create_host_tables"
branch_labels = None
depends_on = None

SHARED_ID = Wanted("id", "bigint", "nextval('realtime_id_seq')", required=True)
CREATED_AT = Wanted(
    "created_at", "timestamp with time zone", "clock_timestamp()", required=True, fill="now()"
)
ATTEMPTS = Wanted("attempts", "smallint", "0", required=True)
# Transaction 3 is the first of every cluster: all snapshots have seen it.
XID = Wanted("xid", "xid8", "pg_current_xact_id()", required=True, fill="'3'")

EVENTS = [
    SHARED_ID,
    Wanted("event_type", "character varying(50)", required=True, fill="'unknown'"),
    Wanted("user_id", "character varying(255)", required=True, fill="''"),
    Wanted("payload", "jsonb", required=True, fill="'{}'"),
    Wanted("delivered", "boolean", "false", required=True),
    CREATED_AT,
    XID,
    Wanted("delivered_at", "timestamp with time zone"),
    Wanted("next_attempt_at", "timestamp with time zone"),
    ATTEMPTS,
    Wanted("room_id", "character varying(64)"),
    Wanted("collapse_key", "character varying(255)"),
    Wanted("trace", "jsonb"),
    Wanted("settled_as", "character varying(20)"),
    Wanted("redriven_at", "timestamp with time zone"),
]
SYNC_ROWS = [
    SHARED_ID,
    Wanted("user_id", "character varying(255)"),
    Wanted("action_type", "character varying(50)", required=True, fill="'unknown'"),
    Wanted("payload", "jsonb", required=True, fill="'{}'"),
    Wanted("synced", "boolean", "false", required=True),
    CREATED_AT,
    XID,
    Wanted("synced_at", "timestamp with time zone"),
    Wanted("next_attempt_at", "timestamp with time zone"),
    ATTEMPTS,
    Wanted("device_id", "bigint"),
    Wanted("key", "character varying(255)"),
]
DEVICES = [
    Wanted("id", "bigint", required=True),
    Wanted("user_id", "character varying(255)"),
    Wanted("device_token", "character varying(255)", required=True, fill="'unknown-' || id"),
    Wanted("platform", "character varying(20)"),
    Wanted("last_active", "timestamp with time zone", "now()", required=True),
    Wanted("created_at", "timestamp with time zone", "now()", required=True),
    Wanted("generation", "bigint", "0", required=True),
    Wanted("position_seen", "pg_snapshot"),
    Wanted("position_reading", "pg_snapshot"),
    Wanted("position_after_id", "bigint"),
    Wanted("position_taken_at", "timestamp with time zone"),
    Wanted("position_incarnation", "text"),
]


def upgrade() -> None:
    gently.run("CREATE SEQUENCE IF NOT EXISTS realtime_id_seq CACHE 1")
    make_events()
    make_sync_queue()
    make_devices()


def make_events() -> None:
    table = "realtime_events"
    is_new = not catalog.has_table(table)
    if is_new:
        gently.run_sql("realtime_events.sql")
    drop_enforced_keys(table)
    if not is_new:
        # Nobody can be told of a row without a user.
        settle = (
            "UPDATE realtime_events SET settled_as = 'expired' WHERE user_id = '' AND settled_as IS NULL;"
        )
        adoption.adopt(table, EVENTS, first=adoption.share_ids(table), last=settle)
    adoption.ensure_index(table, "realtime_events_xid", "(xid)")
    adoption.ensure_index(table, "realtime_events_user_xid", "(user_id, xid)")
    adoption.ensure_index(
        table, "realtime_events_pending", "(user_id, id) WHERE NOT delivered AND settled_as IS NULL"
    )
    adoption.ensure_index(
        table, "realtime_events_created_at", "USING brin (created_at) WITH (autosummarize = on)"
    )
    adoption.ensure_index(table, "realtime_events_redriven_at", "(redriven_at) WHERE redriven_at IS NOT NULL")
    adoption.ensure_index(
        table, "realtime_events_collapse", "(user_id, collapse_key, id) WHERE collapse_key IS NOT NULL"
    )
    tune(table)


def make_sync_queue() -> None:
    table = "sync_queue"
    if not catalog.has_table(table):
        gently.run_sql("sync_queue.sql")
    else:
        adoption.adopt(table, SYNC_ROWS, first=adoption.share_ids(table))
    adoption.ensure_check(table, "sync_queue_user_known", "user_id IS NOT NULL")
    adoption.ensure_user_key(table)
    adoption.ensure_index(table, "sync_queue_xid", "(xid)")
    adoption.ensure_index(table, "sync_queue_user_xid", "(user_id, xid)")
    adoption.ensure_index(table, "sync_queue_pending", "(user_id, id) WHERE NOT synced")
    adoption.ensure_index(table, "sync_queue_created_at", "USING brin (created_at) WITH (autosummarize = on)")
    adoption.ensure_index(table, "sync_queue_key", "(user_id, key) WHERE key IS NOT NULL", unique=True)
    tune(table)


def make_devices() -> None:
    table = "users_devices"
    if not catalog.has_table(table):
        gently.run_sql("users_devices.sql")
    else:
        for check in catalog.constraints(table, "platform"):
            if check.kind == "c" and check.name != "users_devices_platform":
                gently.run(f"ALTER TABLE {table} DROP CONSTRAINT {check.name};")
        adoption.adopt(table, DEVICES, last=own_device_ids())
    adoption.ensure_check(table, "users_devices_user_known", "user_id IS NOT NULL")
    adoption.ensure_check(table, "users_devices_platform", "platform IN ('ios', 'android', 'web')")
    adoption.ensure_user_key(table)
    ensure_unique_tokens(table)
    adoption.ensure_index(table, "users_devices_user", "(user_id)")
    adoption.ensure_index(table, "users_devices_last_active", "(last_active)")
    # Positions move with every receipt and are in no index: with room on the page such updates are heap-only.
    gently.run(f"ALTER TABLE {table} SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);")


def own_device_ids() -> str:
    """Script that gives devices a bigint sequence, their old one where they have it."""
    sequence = gently.scalar("SELECT pg_get_serial_sequence('users_devices', 'id')")
    if sequence is not None:
        return f"ALTER SEQUENCE {sequence} AS bigint;"
    return """
        CREATE SEQUENCE IF NOT EXISTS users_devices_id_seq OWNED BY users_devices.id;
        SELECT setval('users_devices_id_seq', max(id)) FROM users_devices HAVING max(id) IS NOT NULL;
        ALTER TABLE users_devices ALTER id SET DEFAULT nextval('users_devices_id_seq');"""


def ensure_unique_tokens(table: str) -> None:
    """Give the uniqueness of tokens its name, or build it beside the writers."""
    name = "users_devices_device_token_key"
    present = [c.name for c in catalog.constraints(table, "device_token") if c.kind == "u"]
    if name in present:
        return
    if present:
        gently.run(f"ALTER TABLE {table} RENAME CONSTRAINT {present[0]} TO {name};")
        return
    adoption.ensure_index(table, name, "(device_token)", unique=True)
    gently.run(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name};")


def drop_enforced_keys(table: str) -> None:
    """Leave the outbox no key that locks rows of users; say what it refers to where the server can without.

    An enforced key makes one chat message lock the row of every member of its room, and a host that holds
    one of them blocks, deadlocks with or fails the message.
    """
    name = "realtime_events_user_fkey"
    keys = [c for c in catalog.constraints(table, "user_id") if c.kind == "f"]
    for key in keys:
        if key.name != name:
            gently.run(f"ALTER TABLE {table} DROP CONSTRAINT {key.name};")
    if catalog.server_version() >= 18 and not any(key.name == name for key in keys):
        gently.run(
            f"ALTER TABLE {table} ADD CONSTRAINT {name}"
            " FOREIGN KEY (user_id) REFERENCES users (id) NOT ENFORCED;"
        )


def tune(table: str) -> None:
    """Suit a table that only grows at its end, where each row is updated once or twice soon after.

    Marking a row delivered takes it out of a partial index, so that update can never be heap-only; the room
    left on each page keeps the new version beside the old one all the same, and the BRIN ranges narrow.
    Autovacuum comes after thousands of rows, not after a fifth of a table of millions.
    """
    gently.run(
        f"ALTER TABLE {table} SET (fillfactor = 85,"
        " autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 2000,"
        " autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);"
    )


def downgrade() -> None:
    if catalog.was_created_here("realtime_events"):
        gently.run("DROP TABLE realtime_events;")
    for table in ("sync_queue", "users_devices"):
        if catalog.was_created_here(table) and not catalog.has_rows(table):
            gently.run(f"DROP TABLE {table};")
    if not any(catalog.has_table(table) for table in ("realtime_events", "sync_queue")):
        gently.run("DROP SEQUENCE realtime_id_seq;")

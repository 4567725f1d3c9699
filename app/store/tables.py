"""The service's own tables as the migrations make them: for building statements, and for `alembic check`.

Events, sync rows and commands take their ids from one sequence, so one order covers them. `xid` is the
transaction that wrote a row: the half of its place that an id cannot tell, since ids are given out before
commit. The host's tables are deliberately absent; `users` stands in a metadata of its own, as a key's target.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import SchemaItem

from app.store.types import Snapshot, Xid8

metadata = MetaData()
users = Table("users", MetaData(), Column("id", String(255), primary_key=True))


def _id() -> Column[int]:
    return Column(
        "id", BigInteger, primary_key=True, server_default=text("nextval('realtime_id_seq'::regclass)")
    )


def _xid() -> Column[str]:
    return Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()"))


def _time(name: str, default: str | None = None) -> Column[Any]:
    return Column(
        name,
        DateTime(timezone=True),
        nullable=default is None,
        server_default=None if default is None else text(default),
    )


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=text("false"))


def _attempts() -> Column[int]:
    return Column("attempts", SmallInteger, nullable=False, server_default=text("0"))


def _owner(*keys: SchemaItem) -> tuple[SchemaItem, SchemaItem]:
    """Nullable in the catalog for the rows of the predecessor that have none; new rows are checked."""
    return Column("user_id", String(255), *keys), CheckConstraint("user_id IS NOT NULL")


def _user_key() -> ForeignKey:
    return ForeignKey(users.c.id, ondelete="CASCADE", onupdate="CASCADE")


PENDING_EVENT = "NOT delivered AND settled_as IS NULL"
"""An event that is still owed to its user."""
PENDING_SYNC = "NOT synced"

# Without checks: every statement that inserts reads those of its table anew, a sixth of what a row costs.
realtime_events = Table(
    "realtime_events",
    metadata,
    _id(),
    Column("event_type", String(50), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("payload", JSONB, nullable=False),
    _flag("delivered"),
    _time("created_at", "clock_timestamp()"),
    _xid(),
    _time("delivered_at"),
    _time("next_attempt_at"),
    _attempts(),
    Column("room_id", String(64)),
    Column("collapse_key", String(255)),
    Column("trace", JSONB),
    Column("settled_as", String(20)),  # expired, collapsed, left_room or dead
    _time("redriven_at"),  # when an operator set it on its way again
    Index("realtime_events_xid", "xid"),
    Index("realtime_events_user_xid", "user_id", "xid"),
    Index("realtime_events_pending", "user_id", "id", postgresql_where=text(PENDING_EVENT)),
    Index("realtime_events_created_at", "created_at", postgresql_using="brin"),
    Index("realtime_events_redriven_at", "redriven_at", postgresql_where=text("redriven_at IS NOT NULL")),
    Index(
        "realtime_events_collapse",
        "user_id",
        "collapse_key",
        "id",
        postgresql_where=text("collapse_key IS NOT NULL"),
    ),
)

sync_queue = Table(
    "sync_queue",
    metadata,
    _id(),
    *_owner(_user_key()),
    Column("action_type", String(50), nullable=False),
    Column("payload", JSONB, nullable=False),
    _flag("synced"),
    _time("created_at", "clock_timestamp()"),
    _xid(),
    _time("synced_at"),
    _time("next_attempt_at"),
    _attempts(),
    Column("device_id", BigInteger),  # the device that uploaded it
    Column("key", String(255)),  # the client's own, against uploading twice
    Index("sync_queue_xid", "xid"),
    Index("sync_queue_user_xid", "user_id", "xid"),
    Index("sync_queue_pending", "user_id", "id", postgresql_where=text(PENDING_SYNC)),
    Index("sync_queue_created_at", "created_at", postgresql_using="brin"),
    Index("sync_queue_key", "user_id", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
)

users_devices = Table(
    "users_devices",
    metadata,
    Column(
        "id", BigInteger, primary_key=True, server_default=text("nextval('users_devices_id_seq'::regclass)")
    ),
    *_owner(_user_key()),
    Column("device_token", String(255), nullable=False),
    Column("platform", String(20)),
    _time("last_active", "now()"),
    _time("created_at", "now()"),
    Column("generation", BigInteger, nullable=False, server_default=text("0")),
    Column("position_seen", Snapshot),
    Column("position_reading", Snapshot),
    Column("position_after_id", BigInteger),
    _time("position_taken_at"),
    Column("position_incarnation", Text),
    CheckConstraint("platform IN ('ios', 'android', 'web')"),
    UniqueConstraint("device_token", name="users_devices_device_token_key"),
    Index("users_devices_user", "user_id"),
    Index("users_devices_last_active", "last_active"),
)

realtime_commands = Table(
    "realtime_commands",
    metadata,
    _id(),
    _xid(),
    Column("kind", String(30), nullable=False),
    Column("user_id", String(255)),
    Column("device_id", BigInteger),
    Column("room_id", String(64)),
    Column("detail", JSONB),
    _time("created_at", "clock_timestamp()"),
    CheckConstraint(
        "kind IN ('disconnect', 'device_removed', 'device_replaced', 'left_room', 'user_deleted')"
    ),
    Index("realtime_commands_xid", "xid"),
    Index(
        "realtime_commands_user",
        "user_id",
        postgresql_where=text("kind IN ('user_deleted', 'disconnect')"),
    ),
    Index(
        "realtime_commands_to_erase",
        "id",
        postgresql_where=text("kind = 'user_deleted' AND (detail -> 'erased') IS NULL"),
    ),
)

realtime_processes = Table(
    "realtime_processes",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    _time("started_at", "now()"),
    _time("seen_at", "now()"),
    Column("stats", JSONB),
)

realtime_dead_letters = Table(
    "realtime_dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", BigInteger, nullable=False),
    Column("user_id", String(255)),
    Column("device_id", BigInteger),  # null: given up for the whole user
    Column("reason", String(30), nullable=False),
    Column("detail", String(200)),  # what the client said of it
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    _time("dead_at", "now()"),
    UniqueConstraint(
        "event_id", "device_id", name="realtime_dead_letters_event_device", postgresql_nulls_not_distinct=True
    ),
    Index("realtime_dead_letters_user", "user_id", "id"),
)

realtime_redeliveries = Table(
    "realtime_redeliveries",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", BigInteger, nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("device_id", BigInteger),  # null: the user's connections without a device
    _attempts(),
    Column("nacks", SmallInteger, nullable=False, server_default=text("0")),
    Column("detail", String(200)),
    _time("first_at", "now()"),
    _time("next_attempt_at"),
    UniqueConstraint(
        "event_id", "device_id", name="realtime_redeliveries_event_device", postgresql_nulls_not_distinct=True
    ),
    Index("realtime_redeliveries_user", "user_id"),
    Index(
        "realtime_redeliveries_due", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")
    ),
)

realtime_reporters = Table(
    "realtime_reporters",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("report", BigInteger, nullable=False),
    Column("report_before", BigInteger),
    _time("reported_at", "clock_timestamp()"),
)

realtime_tickets = Table(
    "realtime_tickets",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("user_id", String(255), nullable=False),
    Column("issued_at", Double),  # of the token, in unix seconds
    Column("expires_at", Double, nullable=False),
    Column("single_use", Boolean, nullable=False),
    Column("good_until", DateTime(timezone=True), nullable=False),
    _time("created_at", "clock_timestamp()"),
    Index("realtime_tickets_good_until", "good_until"),
    Index("realtime_tickets_user", "user_id"),
)

realtime_incarnation = Table(
    "realtime_incarnation",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("id", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    CheckConstraint("single"),
    prefixes=["UNLOGGED"],
)

realtime_ancestors = Table(
    "realtime_ancestors",
    metadata,
    Column("system_identifier", BigInteger, primary_key=True, autoincrement=False),
    Column("database_oid", BigInteger, primary_key=True, autoincrement=False),
    _time("first_seen", "now()"),
)

realtime_retention = Table(
    "realtime_retention",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    _time("purged_through", "'-infinity'"),
    CheckConstraint("single"),
)

"""Attach the triggers to the host's tables and to ours, each for itself, giving way to writers."""

import catalog
import gently
from gently import refuse

revision = "attach_triggers"
down_revision = "install_functions"
branch_labels = None
depends_on = None

TRIGGERS = [
    ("trigger_mood_realtime", "INSERT ON moods", "notify_mood_event"),
    ("trigger_chat_realtime", "INSERT ON chat_messages", "notify_chat_event"),
    ("trigger_journal_realtime", "INSERT ON journal_entries", "notify_journal_event"),
    ("trigger_sync_realtime", "INSERT ON sync_queue", "notify_sync_event"),
    ("trigger_user_deleted_realtime", "DELETE ON users", "notify_user_deleted"),
    (
        "trigger_room_left_realtime",
        "DELETE OR UPDATE ON room_participants",
        "notify_room_left",
    ),
    (
        "trigger_device_removed_realtime",
        "DELETE OR UPDATE OF user_id ON users_devices",
        "notify_device_removed",
    ),
]
NEEDED = {
    "users": {"id"},
    "moods": {"user_id", "score", "at"},
    "chat_messages": {"id", "room_id", "user_id", "created_at"},
    "room_participants": {"room_id", "user_id", "left_at"},
    "journal_entries": {"id", "user_id", "created_at"},
}
"""Columns of the host's that the functions read: one that is missing would fail every insert."""


def upgrade() -> None:
    for table, needed in NEEDED.items():
        if missing := needed - catalog.columns(table).keys():
            refuse(f"table {table} has no column {', '.join(sorted(missing))}; the triggers need it")
    for name, event, function in TRIGGERS:
        gently.run(
            f"CREATE OR REPLACE TRIGGER {name} AFTER {event} FOR EACH ROW EXECUTE FUNCTION {function}();"
        )


def downgrade() -> None:
    for name, event, _ in reversed(TRIGGERS):
        gently.run(f"DROP TRIGGER IF EXISTS {name} ON {event.rpartition(' ')[2]};")

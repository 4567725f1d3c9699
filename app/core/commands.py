"""What every process must do to a user's connections: rows of `realtime_commands`."""

from dataclasses import dataclass

USER_DELETED = "user_deleted"
DISCONNECT = "disconnect"
DEVICE_REMOVED = "device_removed"
DEVICE_REPLACED = "device_replaced"
LEFT_ROOM = "left_room"


@dataclass(frozen=True, slots=True)
class Command:
    """One command; which of the ids are set depends on its kind.

    `generation`: that of the connection which replaces all older ones of the device. `revoked_before`: tokens
    that were issued before it, in unix seconds, are taken no longer. `repeated`: a restart of the database
    repeats it, so it may have been obeyed before those came whom it meets now.
    """

    kind: str
    user_id: str | None
    device_id: int | None
    generation: int | None = None
    revoked_before: float | None = None
    repeated: bool = False

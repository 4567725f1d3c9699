"""The systems under test; all with the same small interface (`base.System`)."""

from bench.systems.base import Running, System
from bench.systems.database import FLOOR, HOST_ONLY, OUTBOX_ONLY
from bench.systems.least import Least
from bench.systems.mosquitto import Mosquitto
from bench.systems.naive import Naive
from bench.systems.nats import Nats
from bench.systems.ours import Ours
from bench.systems.socketio import SocketIo

SYSTEMS: tuple[System, ...] = (
    HOST_ONLY,
    FLOOR,
    OUTBOX_ONLY,
    Naive(),
    Least(),
    Ours(),
    Mosquitto(),
    Nats(),
    SocketIo(),
)

__all__ = ["SYSTEMS", "Running", "System"]

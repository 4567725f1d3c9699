"""The systems under test; each is a file with the same small interface (`base.System`)."""

from bench.systems.base import Running, System
from bench.systems.floor import Floor
from bench.systems.host_only import HostOnly
from bench.systems.mosquitto import Mosquitto
from bench.systems.naive import Naive
from bench.systems.nats import Nats
from bench.systems.ours import Ours
from bench.systems.outbox_only import OutboxOnly
from bench.systems.socketio import SocketIo

SYSTEMS: tuple[System, ...] = (
    HostOnly(),
    Floor(),
    OutboxOnly(),
    Naive(),
    Ours(),
    Mosquitto(),
    Nats(),
    SocketIo(),
)

__all__ = ["SYSTEMS", "Running", "System"]

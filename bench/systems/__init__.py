"""The systems under test; each is a file with the same small interface (`base.System`)."""

from bench.systems.base import Running, System
from bench.systems.floor import Floor
from bench.systems.host_only import HostOnly
from bench.systems.naive import Naive
from bench.systems.ours import Ours
from bench.systems.outbox_only import OutboxOnly

SYSTEMS: tuple[System, ...] = (HostOnly(), Floor(), OutboxOnly(), Naive(), Ours())

__all__ = ["SYSTEMS", "Running", "System"]

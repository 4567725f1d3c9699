"""What happens to processes of the service."""

import asyncio
import random
import signal

from tests.faults.injector import SlotFault
from tests.faults.world import Slot

NOBODY = 0
"""A port that leads nowhere: the old one may soon be somebody else's."""


class Killed(SlotFault):
    """SIGKILL; a supervisor starts another a little later."""

    name = "SIGKILL of a process"

    async def hit(self, slot: Slot, rng: random.Random) -> None:
        """Kill and start."""
        if slot.server is not None:
            slot.entrance.target = NOBODY
            slot.server.kill()
        await asyncio.sleep(rng.uniform(0, 1))
        await slot.start()


class Terminated(SlotFault):
    """SIGTERM without a successor in place; another is started when it is gone."""

    name = "SIGTERM of a process"

    async def hit(self, slot: Slot, rng: random.Random) -> None:
        """End and start."""
        if slot.server is not None:
            slot.entrance.target = NOBODY
            await slot.retire(slot.server)
        await slot.start()


class Deployed(SlotFault):
    """A new process takes over before the old one drains."""

    name = "deploy of a process"

    async def hit(self, slot: Slot, rng: random.Random) -> None:
        """Replace."""
        await slot.replace()


class Stopped(SlotFault):
    """SIGSTOP for longer than every patience, as a machine that swaps or a laptop that sleeps."""

    name = "SIGSTOP of a process"
    outage = True

    async def hit(self, slot: Slot, rng: random.Random) -> None:
        """Stop and continue."""
        server = slot.server
        if server is None:
            return
        server.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(rng.uniform(6, 9))
        server.process.send_signal(signal.SIGCONT)


PROCESS_FAULTS = (Killed, Terminated, Deployed, Stopped)

"""What the network does, between clients and a process, and between a process and its database."""

import asyncio
import random
from abc import abstractmethod

from tests.faults.injector import SlotFault
from tests.faults.proxy import Proxy
from tests.faults.world import Slot


class NetworkFault(SlotFault):
    """Something on one of the ways of one process, for a while."""

    outage = True
    lasts = (2.0, 8.0)
    """Seconds, at least and at most."""

    async def hit(self, slot: Slot, rng: random.Random) -> None:
        """Disturb one way, and mend it."""
        proxy = rng.choice(slot.proxies)
        try:
            self.disturb(proxy, rng)
            await asyncio.sleep(rng.uniform(*self.lasts))
        finally:
            proxy.heal()

    @abstractmethod
    def disturb(self, proxy: Proxy, rng: random.Random) -> None:
        """Begin."""


class Cut(NetworkFault):
    """Every connection is reset."""

    name = "connections cut"
    lasts = (0.0, 0.5)

    def disturb(self, proxy: Proxy, rng: random.Random) -> None:
        """Cut."""
        proxy.cut()


class Stalled(NetworkFault):
    """Nothing is forwarded, and what was on its way arrives later."""

    name = "network stalled"

    def disturb(self, proxy: Proxy, rng: random.Random) -> None:
        """Stall."""
        proxy.stall()


class BlackHole(NetworkFault):
    """Nothing is forwarded, and at the end every connection is cut: what was on its way is lost."""

    name = "network stalled, then cut"

    async def hit(self, slot: Slot, rng: random.Random) -> None:
        """Stall and cut one way."""
        proxy = rng.choice(slot.proxies)
        try:
            proxy.stall()
            await asyncio.sleep(rng.uniform(*self.lasts))
        finally:
            proxy.cut()
            proxy.heal()

    def disturb(self, proxy: Proxy, rng: random.Random) -> None:
        """Done above."""


class HalfOpen(NetworkFault):
    """The far side is gone and the near one is not told."""

    name = "half-open connections"

    def disturb(self, proxy: Proxy, rng: random.Random) -> None:
        """Forget."""
        proxy.forget()


class Delayed(NetworkFault):
    """A long way."""

    name = "network delayed"

    def disturb(self, proxy: Proxy, rng: random.Random) -> None:
        """Delay each block."""
        proxy.delay = rng.uniform(0.05, 0.5)


class Throttled(NetworkFault):
    """A narrow way."""

    name = "network throttled"

    def disturb(self, proxy: Proxy, rng: random.Random) -> None:
        """Let little through."""
        proxy.rate = rng.uniform(2_000, 20_000)


NETWORK_FAULTS = (Cut, Stalled, BlackHole, HalfOpen, Delayed, Throttled)

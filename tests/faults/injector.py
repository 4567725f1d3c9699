"""Break one thing after another, chosen at random from a seed, until told to stop."""

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from tests.faults.clients import Client
from tests.faults.world import Slot, World


class Fault(ABC):
    """One way to break things; `strike` breaks, holds, and mends before it returns.

    The marks are those of `history.Fault`.
    """

    name: ClassVar[str]
    database: ClassVar[bool] = False
    restart: ClassVar[bool] = False
    outage: ClassVar[bool] = False
    once: ClassVar[bool] = False
    """Whether it can happen only once in a chapter."""

    async def strike(self, world: World, clients: Sequence[Client], rng: random.Random) -> None:
        """Break it for a while, and write down when."""
        began = time.monotonic()
        try:
            await self.perform(world, clients, rng)
        finally:
            world.note(self.name, began, database=self.database, restart=self.restart, outage=self.outage)

    @abstractmethod
    async def perform(self, world: World, clients: Sequence[Client], rng: random.Random) -> None:
        """Break it and mend it."""


class SlotFault(Fault):
    """What happens to one process or its ways; no two at once to the same."""

    async def perform(self, world: World, clients: Sequence[Client], rng: random.Random) -> None:
        slot = rng.choice(world.slots)
        async with slot.lock:
            await self.hit(slot, rng)

    @abstractmethod
    async def hit(self, slot: Slot, rng: random.Random) -> None:
        """Break it and mend it."""


class DatabaseFault(Fault):
    """What happens to PostgreSQL; no two at once."""

    database = True
    outage = True

    async def perform(self, world: World, clients: Sequence[Client], rng: random.Random) -> None:
        async with world.database_lock:
            await self.attack(world, rng)

    @abstractmethod
    async def attack(self, world: World, rng: random.Random) -> None:
        """Break it and mend it."""


class Injector:
    """Hands that break things at random; each waits a little between two faults."""

    def __init__(
        self,
        world: World,
        clients: Sequence[Client],
        faults: Sequence[Fault],
        *,
        seed: str,
        hands: int = 2,
        pause: float = 1.0,
    ) -> None:
        self._world = world
        self._clients = clients
        self._faults = faults
        self._rngs = [random.Random(f"{seed} hand {hand}") for hand in range(hands)]
        self._pause = pause
        self.counts: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Break things for about so long, each fault once before any comes twice, and mend what was broken."""
        until = time.monotonic() + seconds
        queue: list[Fault] = []
        await asyncio.gather(*(self._work(rng, queue, until) for rng in self._rngs))

    async def _work(self, rng: random.Random, queue: list[Fault], until: float) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(rng.uniform(0, 2 * self._pause))
            if not queue:
                queue.extend(one for one in self._faults if not (one.once and self.counts[one.name]))
                rng.shuffle(queue)
            fault = queue.pop()
            self.counts[fault.name] += 1
            try:
                await fault.strike(self._world, self._clients, rng)
            except Exception as error:  # noqa: BLE001 - a fault that cannot be made is no fault of the service
                self._world.history.oddities.append(f"{fault.name} could not be made: {error!r}")

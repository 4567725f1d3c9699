"""What clients do to the service."""

import asyncio
import random
from abc import abstractmethod
from collections.abc import Sequence

from tests.faults.clients import Client
from tests.faults.injector import Fault
from tests.faults.world import World


class ClientFault(Fault):
    """What some of the clients do at once."""

    async def perform(self, world: World, clients: Sequence[Client], rng: random.Random) -> None:
        """Tell some of them."""
        for client in rng.sample(clients, rng.randint(1, len(clients))):
            self.tell(client, rng)
        await asyncio.sleep(1)

    @abstractmethod
    def tell(self, client: Client, rng: random.Random) -> None:
        """Tell one client."""


class Vanish(ClientFault):
    """They leave by a reset, and come back."""

    name = "clients vanish"

    def tell(self, client: Client, rng: random.Random) -> None:
        """Vanish."""
        client.vanish()


class Stall(ClientFault):
    """They read nothing for longer than the service is patient, or not as long."""

    name = "clients stall"

    def tell(self, client: Client, rng: random.Random) -> None:
        """Stall."""
        client.stall(rng.uniform(1, 9))


class FallMute(ClientFault):
    """Those that ack do not, for longer than the service is patient, or not as long."""

    name = "clients never ack"

    def tell(self, client: Client, rng: random.Random) -> None:
        """Say nothing."""
        client.fall_mute(rng.uniform(1, 9))


class Storm(ClientFault):
    """All of them leave and come back at once, several times."""

    name = "storm of reconnects"

    async def perform(self, world: World, clients: Sequence[Client], rng: random.Random) -> None:
        """Vanish, all, again and again."""
        for _ in range(rng.randint(2, 5)):
            for client in clients:
                self.tell(client, rng)
            await asyncio.sleep(rng.uniform(0.1, 0.7))

    def tell(self, client: Client, rng: random.Random) -> None:
        """Vanish."""
        client.vanish()


CLIENT_FAULTS = (Vanish, Stall, FallMute, Storm)

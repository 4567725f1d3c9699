"""Mistakes that others have made, planted into one of two processes: found there, and there alone."""

import asyncio
import random
import time
from collections.abc import Sequence

import pytest

from tests.conftest import NewDatabase
from tests.e2e.conformance.apps import Acking, Plain
from tests.faults import chapter
from tests.faults.chapter import Plan
from tests.faults.clients import Client
from tests.faults.injector import Fault
from tests.faults.world import World

SEED = 5


class VanishWhileStalled(Fault):
    """Clients read nothing for a while, and are gone with what was on its way to them."""

    name = "vanish while stalled"

    async def perform(self, world: World, clients: Sequence[Client], rng: random.Random) -> None:
        """Black-hole all clients, and cut."""
        for slot in world.slots:
            slot.entrance.stall()
        await asyncio.sleep(1)
        for slot in world.slots:
            slot.entrance.cut()
            slot.entrance.heal()


class ListenerAway(Fault):
    """Nobody hears a bell until the last row is written."""

    name = "listener away"

    async def perform(self, world: World, clients: Sequence[Client], rng: random.Random) -> None:
        """Take the listeners' connections away; the drain heals what is left."""
        for slot in world.slots:
            slot.to_bells.stall()
            slot.to_bells.cut()
        written = len(world.history.rows)
        until = time.monotonic() + 60
        while len(world.history.rows) < written + 20 and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


NO_SAFETY_NET = {"bells": "always", "sweep_interval": 600, "busy_above": 10**6, "busy_below": 10**6 - 1}
"""The sweep finds in a second what a bell forgot, and so does a tail that is busy."""


@pytest.mark.one_major
@pytest.mark.timeout(420)
@pytest.mark.parametrize(
    ("planted", "fault", "settings", "promise"),
    [
        ("by_id", None, {}, "P2 loss"),
        ("marks_first", VanishWhileStalled(), {}, "P2 loss"),
        ("forgets_to_wake", ListenerAway(), NO_SAFETY_NET, "P2 loss"),
    ],
    ids=["tails by id", "marks before it sends", "forgets to wake"],
)
async def test_the_checker_finds_a_planted_mistake(
    new_database: NewDatabase,
    planted: str,
    fault: Fault | None,
    settings: dict[str, object],
    promise: str,
) -> None:
    """The same load and fault on a process with the mistake and on one without."""
    applications = (f"tests.faults.planted.{planted}:app", "app.main:app")
    plans = [
        Plan(
            SEED,
            3.0 if fault is None else 1.0,
            [] if fault is None else [fault],
            hands=1,
            calm=0.3,
            slots=1,
            kinds=(Plain, Acking),
            users=3,
            writers=6,
            patience=patience,
            pause=0.02,
            settings=settings,
        )
        for patience in (2.5, 60.0)
    ]
    databases = [await new_database(), await new_database()]

    wrong, right = await asyncio.gather(
        *(
            chapter.run(plan, database, applications={0: application})
            for plan, database, application in zip(plans, databases, applications, strict=True)
        )
    )

    assert right.findings == [], str(right)
    assert promise in {finding.promise for finding in wrong.findings}, str(wrong)

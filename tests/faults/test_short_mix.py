"""A short run of faults at random, as part of every test run; `make faults` is the long one."""

import random

import pytest

from tests.conftest import NewCluster
from tests.faults import chapter
from tests.faults.chapter import Plan
from tests.faults.client_faults import CLIENT_FAULTS
from tests.faults.database_faults import BackendKilled, BackendsTerminated, PostmasterKilled
from tests.faults.network_faults import NETWORK_FAULTS
from tests.faults.process_faults import Deployed, Killed, Terminated
from tests.support.postgres import create_database

SECONDS = 40.0
FAULTS = (
    *(Killed, Terminated, Deployed),
    *(BackendKilled, PostmasterKilled, BackendsTerminated),
    *NETWORK_FAULTS,
    *CLIENT_FAULTS,
)
"""Those that last a few seconds."""


@pytest.mark.one_major
@pytest.mark.timeout(420)
async def test_a_short_mix_of_faults_breaks_no_promise(private_cluster: NewCluster) -> None:
    """Processes, the database, the network and clients, three things at a time; the seed is printed."""
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    database = await create_database(private_cluster(options={"max_connections": "60"}))

    plan = Plan(seed, SECONDS, [kind() for kind in FAULTS], hands=3, calm=0.3, hold=2.0, pause=0.1)

    report = await chapter.run(plan, database)

    assert report.findings == [], f"seed {seed}\n{report}"

"""Connections that never say all of what they want: 10,000 of them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.e2e.adversary.conftest import Before, welcome
from tests.e2e.conftest import Eventually
from tests.support import host as app
from tests.support.postgres import ROOT
from tests.support.server import PATIENCE, Server

MANY = 10_000
KEPT = 1000
"""The default of HALF_OPEN_PER_PROCESS."""
AGAIN = 3000
"""After the first: enough for a leak to show."""
LEFT = AGAIN * 800
"""Bytes that an attack may leave: no object of a connection is as small, so none of them may stay."""


@asynccontextmanager
async def half_open(server: Server, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """An attacker who has so many half-open connections, or had."""
    attacker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.attackers", "half-open", str(server.port), str(count)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield attacker
    finally:
        attacker.kill()
        await attacker.wait()


async def closed(attacker: asyncio.subprocess.Process) -> int:
    """How many of its connections the server has closed."""
    assert attacker.stdout is not None
    return int((await asyncio.wait_for(attacker.stdout.readline(), PATIENCE)).split()[1])


async def test_ten_thousand_half_open_connections_keep_nobody_out_and_leave_nothing(
    server: Server, host: asyncpg.Connection, eventually: Eventually, survives: Before
) -> None:
    """A bounded number of them is kept, and these only for as long as a handshake may take."""
    user = await app.add_user(host)
    await attack(server, host, eventually, user, MANY)
    await survives.attack(lambda: attack(server, host, eventually, user, AGAIN), left=LEFT)


async def attack(
    server: Server, host: asyncpg.Connection, eventually: Eventually, user: str, count: int
) -> None:
    """Be there with all of them, while somebody else is served, until the last one has been closed."""
    async with half_open(server, count) as attacker:
        assert attacker.stdin is not None
        say = attacker.stdin.write
        await closed(attacker)

        client = await welcome(server, user)
        await app.log_mood(host, user)
        await client.got(1)
        await client.close()

        async def at_least(number: int) -> bool:
            say(b"\n")
            return await closed(attacker) >= number

        await eventually(lambda: at_least(count - KEPT))
        await eventually(lambda: at_least(count))

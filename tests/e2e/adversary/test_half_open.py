"""Connections that never say all of what they want: 10,000 of them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.e2e.adversary.conftest import Before, welcome
from tests.e2e.conftest import Eventually
from tests.support import host as app
from tests.support.postgres import ROOT
from tests.support.server import PATIENCE, Server

MANY = 10_000
KEPT = 1000
"""The default of HALF_OPEN_PER_PROCESS."""
LEFT = MANY * 800
"""Bytes that an attack may leave: no object of a connection is as small, so none of them may stay."""
ATTACKS = 5
"""How often there is one, at most, until one leaves no more; the second is usual."""


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


@pytest.mark.one_major
async def test_ten_thousand_half_open_connections_keep_nobody_out_and_leave_nothing(
    server: Server, host: asyncpg.Connection, eventually: Eventually, survives: Before
) -> None:
    """A bounded number of them is kept, and these only for as long as a handshake may take.

    Python keeps what it needed at most, which depends on how many there were at once; a leak grows each time.
    """
    user = await app.add_user(host)
    grown: list[int] = []
    while not grown or grown[-1] > LEFT:
        assert len(grown) < ATTACKS, f"each time it kept some more bytes: {grown}"
        survives.memory = server.memory()
        await attack(server, host, eventually, user)
        grown.append(server.memory() - survives.memory)


async def attack(server: Server, host: asyncpg.Connection, eventually: Eventually, user: str) -> None:
    """Be there with all of them, while somebody else is served, until the last one has been closed."""
    async with half_open(server, MANY) as attacker:
        assert attacker.stdin is not None
        say = attacker.stdin.write
        await closed(attacker)

        client = await welcome(server, user)
        await app.log_mood(host, user)
        await client.got(1)
        await client.close()

        async def at_least(count: int) -> bool:
            say(b"\n")
            return await closed(attacker) >= count

        await eventually(lambda: at_least(MANY - KEPT))
        await eventually(lambda: at_least(MANY))

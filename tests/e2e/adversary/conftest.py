"""One service for all attacks; what it must have left after each of them is asked here and not in the tests.

A well-behaved client is there before an attack and after it, and a new one is let in. By then every connection
of the attacker is gone, and so is the memory it took; the log holds no traceback and no error.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from tests.e2e.conftest import Eventually, aside, migrated_house
from tests.support import host as app
from tests.support import issuer
from tests.support.client import Client, RawClient, open_client, raw_client, target
from tests.support.issuer import AUDIENCE, ISSUER
from tests.support.postgres import Database, Servers
from tests.support.roles import as_service
from tests.support.server import Server

ALGORITHM = "RS256"
HANDSHAKE_TIMEOUT = 3.0
HEARTBEAT = 1.0
"""Seconds of silence before a ping, and again until its answer."""
MEMORY = 32 << 20
"""Bytes by which the service may be larger after an attack: what Python keeps for the next objects."""


@pytest.fixture(scope="package")
def house(servers: Servers) -> Iterator[Database]:
    """One database for all attacks."""
    with migrated_house(servers) as database:
        yield database


@pytest.fixture(scope="package")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The issuer's public key, which everybody may have."""
    path = tmp_path_factory.mktemp("issuer") / "public.pem"
    path.write_bytes(issuer.public_pem(ALGORITHM))
    return path


@contextmanager
def besieged(house: Database, key_file: Path, *arguments: str) -> Iterator[Server]:
    """A service as a production would have it, but quicker to lose patience."""
    server = Server(
        as_service(house),
        *("--timeout-keep-alive", "1", *arguments),
        environment="production",
        jwt_public_key_file=key_file,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        handshake_timeout=HANDSHAKE_TIMEOUT,
        heartbeat_interval=HEARTBEAT,
        heartbeat_patience=HEARTBEAT,
    )
    aside(server.healthy())
    yield server
    server.end()


@pytest.fixture(scope="package")
def module_server(house: Database, key_file: Path) -> Iterator[Server]:
    """One service for all attacks, but those that are about what it runs under."""
    with besieged(house, key_file) as server:
        yield server


def good(user: str) -> dict[str, str]:
    """The header of somebody with a token."""
    token = issuer.signed(ALGORITHM, user, iss=ISSUER, aud=AUDIENCE)
    return {"Authorization": f"Bearer {token}"}


async def welcome(server: Server, user: str, **query: str) -> Client:
    """Connect as somebody with a token; returns once connected."""
    client = await open_client(server.address, good(user), **query)
    await client.until(lambda one: one.messages)
    assert client.messages[0]["type"] == "connected", client.messages
    return client


@asynccontextmanager
async def attacker(
    server: Server, user: str, *headers: str, receive_buffer: int | None = None
) -> AsyncIterator[RawClient]:
    """Somebody with a good token and a connection, who does with it what a test says."""
    async with raw_client(server.address, receive_buffer=receive_buffer) as client:
        authorization = f"Authorization: {good(user)['Authorization']}"
        head = await client.handshake(target(), authorization, *headers)
        assert head.startswith(b"HTTP/1.1 101"), head
        assert b"sec-websocket-extensions" not in head.lower(), head
        assert (await client.read_message())["type"] == "connected"
        yield client


ATTACKS = 5
"""How often an attack is made, at most, until one leaves no more; the second is usual."""


@dataclass
class Before:
    """Bytes of memory that the service had before the attack; the last of them, where there were several."""

    server: Server
    memory: int

    async def attack(self, attack: Callable[[], Awaitable[None]], *, left: int) -> None:
        """Attack again and again, until once no more than `left` bytes stay.

        The first time Python keeps what it needed at most, which depends on how much came at once; a leak
        grows every time.
        """
        grown: list[int] = []
        while not grown or grown[-1] > left:
            assert len(grown) < ATTACKS, f"each time it kept some more bytes: {grown}"
            self.memory = self.server.memory()
            await attack()
            grown.append(self.server.memory() - self.memory)


@pytest.fixture(autouse=True)
async def survives(server: Server, host: asyncpg.Connection, eventually: Eventually) -> AsyncIterator[Before]:
    """See that an attack has left nothing, and that who was there before it is served after it."""
    user = await app.add_user(host)
    witness = await welcome(server, user)
    sockets, before = await asyncio.to_thread(server.sockets), Before(server, server.memory())
    yield before
    await app.log_mood(host, user)
    await witness.got(1)
    newcomer = await welcome(server, user)
    await newcomer.ask()
    await newcomer.close()

    async def everybody_has_gone() -> bool:
        return await asyncio.to_thread(server.sockets) <= sockets

    await eventually(everybody_has_gone)
    await witness.close()
    grown = server.memory() - before.memory
    assert grown < MEMORY, f"it kept {grown >> 20} MiB"

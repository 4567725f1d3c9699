"""Databases as a migration finds them, and roles that are gone after the test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import asyncpg
import pytest

from tests.integration.schema.databases import load
from tests.support.postgres import Database

Role = Callable[[str], Awaitable[str]]


@pytest.fixture
async def host_database(empty_database: Database) -> Database:
    """A database of MindVibe's, with rows and an alembic history of its own."""
    await load(empty_database, "mindvibe.sql")
    return empty_database


@pytest.fixture
async def predecessor_database(host_database: Database) -> Database:
    """The same with the predecessor's tables, functions and triggers."""
    await load(host_database, "predecessor.sql")
    return host_database


@pytest.fixture
async def connection(database: Database) -> asyncpg.Connection:
    """A connection to a migrated database, as the owner of everything."""
    return await database.connect()


@pytest.fixture
async def new_role(database: Database) -> AsyncIterator[Role]:
    """Make roles that may log in and nothing else."""
    owner = await database.connect()
    made: list[str] = []

    async def make(name: str) -> str:
        made.append(f"{name}_{uuid4().hex[:8]}")
        await owner.execute(f"CREATE ROLE {made[-1]} LOGIN")
        return made[-1]

    yield make
    for name in made:
        await owner.execute(f"DROP OWNED BY {name}")
        await owner.execute(f"DROP ROLE {name}")

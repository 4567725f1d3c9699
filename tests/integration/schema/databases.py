"""What the tests of this folder do to databases."""

import asyncio
from pathlib import Path

from tests.support.postgres import Database, migrate

HERE = Path(__file__).parent


async def load(database: Database, *names: str) -> None:
    """Run the SQL files of this folder on a database."""
    connection = await database.connect()
    for name in names:
        await connection.execute((HERE / name).read_text(encoding="utf-8"))


async def alembic(database: Database, *arguments: str) -> str:
    """Run alembic on a database as a user would; return what it prints."""
    return await asyncio.to_thread(migrate, database.url, *arguments)


async def contents(database: Database, *tables: str) -> dict[str, list[str]]:
    """Every row of the tables as text."""
    connection = await database.connect()
    return {
        table: [row[0] for row in await connection.fetch(f"SELECT t::text FROM {table} AS t ORDER BY 1")]
        for table in tables
    }

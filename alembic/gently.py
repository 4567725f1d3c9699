"""DDL beside a host at work: short transactions that give way instead of letting a queue form behind them.

An ALTER TABLE that waits for a lock makes every later INSERT wait behind it. So each script is one
transaction of its own, gives up after LOCK_TIMEOUT_MS, and tries again later. Whatever a migration broken
half-way has done stays done; every script can therefore be run again.
"""

import asyncio
import logging
import random
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
from sqlalchemy import text

from alembic import op, util

LOCK_TIMEOUT_MS = 500
TRIES = 60
PAUSES = (0.1, 0.25, 0.5, 1.0)
"""Seconds between tries; the last one repeats."""

SQL_FOLDER = Path(__file__).parent / "versions" / "sql"


def schema() -> str:
    """The schema this migration works in, quoted."""
    return str(op.get_bind().scalar(text("SELECT quote_ident(current_schema())")))


def run(script: str) -> None:
    """Run statements as one transaction; raises `CommandError` when `TRIES` tries got no lock."""

    async def attempt(connection: asyncpg.Connection) -> None:
        for number in range(TRIES):
            try:
                await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS};\n{script}")
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
                last = error
            except asyncpg.InsufficientPrivilegeError as error:
                raise util.CommandError(
                    f"{error}; run the migration as the owner of the host's tables"
                ) from error
            else:
                return
            await asyncio.sleep(PAUSES[min(number, len(PAUSES) - 1)] * random.uniform(0.8, 1.2))
        raise util.CommandError(
            f"a long transaction keeps a table locked ({last}); end it and run the migration again"
        )

    _outside_transactions(attempt)


def run_sql(name: str) -> None:
    """Run a file of `versions/sql` with @schema@ replaced by the schema of this migration."""
    where = schema()
    run((SQL_FOLDER / name).read_text(encoding="utf-8").replace("@schema@", where))


def run_beside_writers(statement: str) -> None:
    """Run one statement that blocks no writer (CONCURRENTLY, VALIDATE) and may wait as long as it takes."""
    _outside_transactions(lambda connection: connection.execute(statement))


def scalar(statement: str) -> Any:
    """The first value of a query."""
    return op.get_bind().scalar(text(statement))


def refuse(line: str) -> NoReturn:
    """End the migration with one line that says what to do."""
    raise util.CommandError(line)


def tell(line: str) -> None:
    """Say something to whoever runs the migration."""
    logging.getLogger("alembic.realtime").warning(line)


def _outside_transactions(work: Any) -> None:
    context = op.get_context()
    with context.autocommit_block():
        driver: Any = op.get_bind().connection.dbapi_connection
        driver.run_async(work)

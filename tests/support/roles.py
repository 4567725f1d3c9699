"""The roles of ops/grants.sql: the service's with no right on the host's tables, and one as the host's."""

import os
import subprocess

import asyncpg

from tests.support.postgres import ROOT, Database

HOST_TABLES = "users, moods, chat_rooms, room_participants, chat_messages, journal_entries"


def role_names(database: Database) -> tuple[str, str]:
    """The host's role and the service's; roles belong to the cluster, so their names tell of the database."""
    return f"host_of_{database.name}", f"service_of_{database.name}"


def as_service(database: Database) -> str:
    """The address of a database for the service's role."""
    return database.cluster.url(database.name, user=role_names(database)[1])


async def create_roles(database: Database) -> None:
    """Make both roles, with what ops/grants.sql gives them, and the host's with its own tables."""
    host_role, service_role = role_names(database)
    await _execute(database, f"CREATE ROLE {host_role} LOGIN; CREATE ROLE {service_role} LOGIN")
    subprocess.run(  # noqa: ASYNC221 - nothing else runs meanwhile
        [
            database.cluster.binaries.program("psql"),
            *("-Xq", "-d", database.url, "-f", ROOT / "ops" / "grants.sql"),
            *("-v", f"host_role={host_role}", "-v", f"service_role={service_role}"),
        ],
        check=True,
        env=os.environ,
    )
    await _execute(
        database,
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {HOST_TABLES} TO {host_role};"
        f"GRANT USAGE ON moods_id_seq, room_participants_id_seq TO {host_role}",
    )


async def drop_roles(database: Database) -> None:
    """Take both away with all they were given."""
    for role in role_names(database):
        await _execute(database, f"DROP OWNED BY {role}; DROP ROLE {role}")


async def _execute(database: Database, statements: str) -> None:
    connection = await asyncpg.connect(database.url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()

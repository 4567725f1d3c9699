"""What the database already holds, asked in the schema of this migration."""

from typing import Any

from sqlalchemy import Row, text

from alembic import op

OURS = "Created by MindVibe Real-Time"
ADOPTED = "Adopted by MindVibe Real-Time"


def server_version() -> int:
    """The server's major version."""
    return int(_one("SELECT current_setting('server_version_num')::int / 10000"))


def has_table(name: str) -> bool:
    """Whether this schema has the table."""
    return bool(
        _one("SELECT to_regclass(quote_ident(current_schema()) || '.' || :name) IS NOT NULL", name=name)
    )


def may_read(table: str) -> bool:
    """Whether this role, as which the functions will run, may read the table."""
    return bool(_one("SELECT has_table_privilege(cast(:name AS regclass), 'SELECT')", name=table))


def has_rows(table: str) -> bool:
    """Whether the table holds any row."""
    return bool(_one(f"SELECT EXISTS (SELECT FROM {table})"))


def was_created_here(table: str) -> bool:
    """Whether the table's comment says that a migration of ours made it."""
    comment = _one("SELECT obj_description(cast(:name AS regclass), 'pg_class')", name=table)
    return bool(comment) and str(comment).startswith(OURS)


def columns(table: str) -> dict[str, Row[Any]]:
    """Each column's `type`, as DDL writes it, and whether it is `required`."""
    rows = op.get_bind().execute(
        text(
            "SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS required"
            " FROM pg_attribute"
            " WHERE attrelid = cast(:name AS regclass) AND attnum > 0 AND NOT attisdropped"
        ),
        {"name": table},
    )
    return {row.name: row for row in rows}


def constraints(table: str, column: str) -> list[Row[Any]]:
    """Constraints over exactly this column: `name`, quoted, and `kind`, such as c, f or u."""
    return list(
        op.get_bind().execute(
            text(
                "SELECT quote_ident(c.conname) AS name, c.contype::text AS kind"
                " FROM pg_constraint c"
                " JOIN pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]"
                " WHERE c.conrelid = cast(:name AS regclass) AND a.attname = :column"
                " ORDER BY c.conname"
            ),
            {"name": table, "column": column},
        )
    )


def index_state(name: str) -> str:
    """`missing`, `valid`, or `invalid`: left over from a CREATE INDEX CONCURRENTLY that was broken off."""
    valid = _one(
        "SELECT indisvalid FROM pg_index"
        " WHERE indexrelid = to_regclass(quote_ident(current_schema()) || '.' || :name)",
        name=name,
    )
    return {None: "missing", True: "valid", False: "invalid"}[valid]


def writers(table: str) -> list[str]:
    """Roles, quoted, that were granted INSERT on the table, without its owner."""
    return list(
        op.get_bind().scalars(
            text(
                "SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END"
                " FROM pg_class, aclexplode(relacl) WHERE oid = cast(:name AS regclass)"
                " AND privilege_type = 'INSERT' AND grantee <> relowner ORDER BY 1"
            ),
            {"name": table},
        )
    )


def _one(statement: str, **values: Any) -> Any:
    return op.get_bind().scalar(text(statement), values)

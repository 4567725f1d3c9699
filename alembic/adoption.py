"""Bring a table of the predecessor, or one of ours that a downgrade kept, to the shape this service needs.

Every row is kept. What a table already has is left alone, so that adopting twice changes nothing.
"""

from typing import NamedTuple

import catalog
import gently


class Wanted(NamedTuple):
    """A column as it has to be; all but the name are SQL."""

    name: str
    type: str
    default: str | None = None
    required: bool = False
    fill: str | None = None
    """What old rows get where they have nothing; the default where this is not given."""


def adopt(table: str, wanted: list[Wanted], *, first: str = "", last: str = "") -> None:
    """Widen and add columns in one transaction, with the scripts `first` and `last` in the same one.

    A change of type rewrites the table under a lock that stops its writers: 1 to 2 s per million rows.
    """
    present = catalog.columns(table)
    changes = []
    for column in wanted:
        have = present.get(column.name)
        if have is None:
            changes.append(_addition(column))
        elif have.type != column.type or (column.required and not have.required):
            changes += _conversion(column, have.type, nullable=not have.required)
    defaults = [f"ALTER {c.name} SET DEFAULT {c.default}" for c in wanted if c.default is not None]
    script = [first]
    if changes:
        script.append(f"ALTER TABLE {table} {', '.join(changes)};")
    if defaults:
        script.append(f"ALTER TABLE {table} {', '.join(defaults)};")
    script.append(last)
    if not catalog.was_created_here(table):
        script.append(
            f"COMMENT ON TABLE {table} IS '{catalog.ADOPTED} with the rows it had; a downgrade keeps it.';"
        )
    gently.run("\n".join(script))


def share_ids(table: str) -> str:
    """Script that makes the table take ids from the common sequence, beyond every id it holds."""
    granted = "".join(
        f"GRANT USAGE ON SEQUENCE realtime_id_seq TO {role};" for role in catalog.writers(table)
    )
    return f"""
        ALTER TABLE {table} ALTER id DROP IDENTITY IF EXISTS;
        SELECT setval('realtime_id_seq', top) FROM (SELECT max(id) AS top FROM {table}) AS ids
            WHERE top > (SELECT last_value FROM realtime_id_seq);
        {granted}"""


def ensure_check(table: str, name: str, condition: str) -> None:
    """Add a check for new rows; the old ones are kept as they are."""
    gently.run(
        f"""DO $$ BEGIN
            IF NOT EXISTS (
                SELECT FROM pg_constraint WHERE conrelid = '{table}'::regclass AND conname = '{name}'
            ) THEN
                ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID;
            END IF;
        END $$"""
    )


def ensure_index(table: str, name: str, definition: str, *, unique: bool = False) -> None:
    """Build an index, beside the writers where the table holds rows; one left half-built is built anew."""
    kind = "UNIQUE INDEX" if unique else "INDEX"
    if catalog.index_state(name) == "invalid":
        gently.run_beside_writers(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    if catalog.has_rows(table):
        gently.run_beside_writers(f"CREATE {kind} CONCURRENTLY IF NOT EXISTS {name} ON {table} {definition}")
    else:
        gently.run(f"CREATE {kind} IF NOT EXISTS {name} ON {table} {definition}")


def ensure_user_key(table: str) -> None:
    """Make deleting a user delete the table's rows, and changing a user's id follow.

    Without the second the host could no longer change an id. Rows of users that are already gone stay: the
    key is then not validated, and holds for new rows.
    """
    name = f"{table}_user_fkey"
    present = [c for c in catalog.constraints(table, "user_id") if c.kind == "f"]
    if not any(c.name == name for c in present):
        gently.run(
            f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (user_id) REFERENCES users (id)"
            " ON UPDATE CASCADE ON DELETE CASCADE NOT VALID;"
        )
    for other in present:
        if other.name != name:
            gently.run(f"ALTER TABLE {table} DROP CONSTRAINT {other.name};")
    orphaned = gently.scalar(
        f"SELECT EXISTS (SELECT FROM {table} WHERE user_id IS NOT NULL"
        f" AND NOT EXISTS (SELECT FROM users WHERE users.id = {table}.user_id))"
    )
    if orphaned:
        gently.tell(f"{table} holds rows of users that do not exist; they are kept")
    else:
        gently.run_beside_writers(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def _addition(column: Wanted) -> str:
    value = column.fill or column.default
    return (
        f"ADD COLUMN {column.name} {column.type}"
        f"{f' DEFAULT {value}' if value else ''}{' NOT NULL' if column.required else ''}"
    )


def _conversion(column: Wanted, old_type: str, *, nullable: bool) -> list[str]:
    # The predecessor wrote its zoneless times in UTC, whatever the zone of this session.
    value = f"{column.name} AT TIME ZONE 'UTC'" if old_type.endswith("without time zone") else column.name
    if column.type == "jsonb":
        value += "::jsonb"
    fill = column.fill or column.default
    if column.required and nullable and fill:
        value = f"coalesce({value}, {fill})"
    steps = [f"ALTER {column.name} DROP DEFAULT"] if column.default else []
    steps.append(f"ALTER {column.name} TYPE {column.type} USING {value}")
    if column.required and nullable:
        steps.append(f"ALTER {column.name} SET NOT NULL")
    return steps

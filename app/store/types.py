"""PostgreSQL's types for transaction ids and snapshots, which SQLAlchemy does not know."""

from typing import Any

from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType


class Xid8(UserDefinedType[str]):
    """`xid8`: a 64-bit transaction id; the driver hands it over as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The name DDL uses."""
        return "xid8"


class Snapshot(UserDefinedType[str]):
    """`pg_snapshot`: `xmin:xmax:in_progress,...`; the driver hands it over as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The name DDL uses."""
        return "pg_snapshot"


# Reflection looks types up by name here; without these it would warn and compare nothing.
ischema_names.setdefault("xid8", Xid8)
ischema_names.setdefault("pg_snapshot", Snapshot)

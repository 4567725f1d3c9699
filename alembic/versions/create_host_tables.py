"""Create the host's tables where they are missing, so that the service also works on an empty database."""

import catalog
import gently

revision = "create_host_tables"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    gently.run_sql("host_tables.sql")
    for table in ("users", "room_participants"):
        if not catalog.may_read(table):
            gently.refuse(
                f"this role may not read {table}, which the triggers do in its name; grant it SELECT"
            )


def downgrade() -> None:
    """Nothing: the host's tables are not ours to drop, even where we made them."""

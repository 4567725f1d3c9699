"""Create the control plane: commands, processes, dead letters, incarnation, retention, bells."""

import gently

revision = "create_bookkeeping"
down_revision = "create_outbox"
branch_labels = None
depends_on = None


def upgrade() -> None:
    gently.run_sql("bookkeeping.sql")


def downgrade() -> None:
    gently.run_sql("drop_bookkeeping.sql")

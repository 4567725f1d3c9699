"""Install the functions of the outbox; those of the predecessor's names take over from its own."""

import gently

revision = "install_functions"
down_revision = "create_bookkeeping"
branch_labels = None
depends_on = None


def upgrade() -> None:
    gently.run_sql("functions.sql")


def downgrade() -> None:
    gently.run_sql("drop_functions.sql")

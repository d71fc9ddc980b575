"""Add the new column."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add it; nobody reads or writes it yet, and to add a column that may be empty takes no time."""
    op.add_column("customers", sa.Column("full_name", sa.Text))


def downgrade() -> None:
    """Take it away again."""
    op.drop_column("customers", "full_name")

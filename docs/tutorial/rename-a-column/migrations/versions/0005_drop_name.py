"""Drop the old column. Run it once the migration is at `drop`, and not before."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Drop it, which nobody can undo."""
    op.drop_column("customers", "name")


def downgrade() -> None:
    """Make it again, from what the new one holds."""
    op.add_column("customers", sa.Column("name", sa.Text))
    op.execute("UPDATE customers SET name = full_name")

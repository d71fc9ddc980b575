"""The new column has to be there, and the old one need not any more. All write both by now."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Move the constraint from the old column to the new one."""
    op.alter_column("customers", "full_name", nullable=False)
    op.alter_column("customers", "name", nullable=True)


def downgrade() -> None:
    """Move it back."""
    op.execute("UPDATE customers SET name = full_name WHERE name IS NULL")
    op.alter_column("customers", "name", nullable=False)
    op.alter_column("customers", "full_name", nullable=True)

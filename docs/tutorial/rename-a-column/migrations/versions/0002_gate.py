"""Make the tables in which the migration keeps its phase and its evidence."""

from alembic import op

from phyxius.adapters.sqlalchemy import metadata

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make them."""
    metadata.create_all(op.get_bind())


def downgrade() -> None:
    """Drop them."""
    metadata.drop_all(op.get_bind())

"""The index of what webhooks are owed begins with the tenant: one's many receivers hide no other's."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

PENDING = sa.text("state = 'pending'")


def upgrade() -> None:
    _replace("ix_deliveries_due", "ix_deliveries_tenant", "tenant", "lane", "next_at")


def downgrade() -> None:
    _replace("ix_deliveries_tenant", "ix_deliveries_due", "lane", "next_at")


def _replace(old: str, new: str, *columns: str) -> None:
    op.create_index(new, "deliveries", list(columns), postgresql_where=PENDING, sqlite_where=PENDING)
    op.drop_index(old, "deliveries")

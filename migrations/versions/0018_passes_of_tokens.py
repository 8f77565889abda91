"""Stream passes that end with the token they were asked for with."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stream_passes", sa.Column("expires_at", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("stream_passes", "expires_at")

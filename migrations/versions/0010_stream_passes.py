"""Stream passes: what a page that cannot send a key may watch."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stream_passes",
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("jobs", sa.Text(), nullable=False),
        sa.Column("feed", sa.Boolean(), nullable=False),
        sa.Column("origin", sa.Text()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("sha256", name="pk_stream_passes"),
    )
    op.create_index("ix_stream_passes_tenant_created_at", "stream_passes", ["tenant", "created_at"])


def downgrade() -> None:
    op.drop_table("stream_passes")

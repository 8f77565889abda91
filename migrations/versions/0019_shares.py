"""Limits by concurrency key, and an index by which a claim finds each tenant's next jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

QUEUED = sa.text("status = 'queued'")
HOLDING = sa.text("concurrency_key IS NOT NULL AND status IN ('queued', 'running')")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("concurrency_key", sa.Text))
    op.add_column("jobs", sa.Column("concurrency_limit", sa.Integer))
    op.create_index("ix_jobs_share", "jobs", ["tenant", "engine", "rank"], postgresql_where=QUEUED, sqlite_where=QUEUED)
    op.create_index(
        "ix_jobs_concurrency",
        "jobs",
        ["status", "tenant", "concurrency_key"],
        postgresql_where=HOLDING,
        sqlite_where=HOLDING,
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_concurrency", "jobs")
    op.drop_index("ix_jobs_share", "jobs")
    op.drop_column("jobs", "concurrency_limit")
    op.drop_column("jobs", "concurrency_key")

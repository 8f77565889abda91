"""Unique keys: of a tenant's jobs with the same one, only one may be unfinished."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

UNFINISHED = sa.text("unique_key IS NOT NULL AND status IN ('queued', 'running')")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("unique_key", sa.Text))
    op.create_index(
        "uq_jobs_unfinished",
        "jobs",
        ["tenant", "unique_key"],
        unique=True,
        postgresql_where=UNFINISHED,
        sqlite_where=UNFINISHED,
    )


def downgrade() -> None:
    op.drop_index("uq_jobs_unfinished", "jobs")
    op.drop_column("jobs", "unique_key")

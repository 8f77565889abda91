"""Whom a job is about, and an index by which a worker finds the job before it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KNOWN = sa.text("subject IS NOT NULL")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("subject", sa.Text))
    op.create_index(
        "ix_jobs_subject",
        "jobs",
        ["tenant", "engine", "subject", "finished_at"],
        postgresql_where=KNOWN,
        sqlite_where=KNOWN,
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_subject", "jobs")
    op.drop_column("jobs", "subject")

"""An index for jobs that took two workers down: every beat asks whether one waits for an idle worker."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ALONE = sa.text("status = 'queued' AND losses >= 2")


def upgrade() -> None:
    op.create_index("ix_jobs_alone", "jobs", ["engine", "engine_version"], postgresql_where=ALONE, sqlite_where=ALONE)


def downgrade() -> None:
    op.drop_index("ix_jobs_alone", "jobs")

"""An index by which a job finds those that were made from it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

RERUN = sa.text("rerun_of IS NOT NULL")


def upgrade() -> None:
    op.create_index("ix_jobs_rerun_of", "jobs", ["rerun_of", "id"], postgresql_where=RERUN, sqlite_where=RERUN)


def downgrade() -> None:
    op.drop_index("ix_jobs_rerun_of", "jobs")

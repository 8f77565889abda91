"""Schedules: jobs made again and again, and what was done with and by each schedule."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
RUNS = sa.text("next_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("catch_up", sa.Text(), nullable=False),
        sa.Column("catch_up_max", sa.Integer(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("next_at", sa.BigInteger()),
        sa.Column("last_at", sa.BigInteger()),
        sa.Column("last_job_id", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint("tenant", "name", name="uq_schedules_tenant_name"),
    )
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"], postgresql_where=RUNS, sqlite_where=RUNS)
    op.create_table(
        "schedule_acts",
        sa.Column("no", Serial, autoincrement=True, nullable=False),
        sa.Column("schedule_id", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("address", sa.Text()),
        sa.Column("detail", sa.Text()),
        sa.PrimaryKeyConstraint("no", name="pk_schedule_acts"),
    )
    op.create_index("ix_schedule_acts_schedule_id", "schedule_acts", ["schedule_id", "no"])
    op.add_column("jobs", sa.Column("schedule", sa.Text))


def downgrade() -> None:
    op.drop_column("jobs", "schedule")
    op.drop_table("schedule_acts")
    op.drop_table("schedules")

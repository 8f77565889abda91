"""Indexes: the feed of one tenant, whether any job is due, and which waiting jobs have a deadline.

On PostgreSQL they are built while others write, each in a transaction of its own: those of `events` on each partition,
which the parent's takes in, since one made on the parent would hold up every append. A run that broke off is begun again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

READY = "status = 'queued' AND losses < 2"
TIMED = "status = 'queued' AND (start_s IS NOT NULL OR total_s IS NOT NULL)"
JOBS = {"ix_jobs_ready": f"(not_before) WHERE {READY}", "ix_jobs_timed": f"(id) WHERE {TIMED}"}
FEED = "ix_events_tenant"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for name, what in JOBS.items():
            op.execute(f"CREATE INDEX {name} ON jobs {what}")
        op.create_index(FEED, "events", ["tenant", "pos"])
        return
    with op.get_context().autocommit_block():
        for name, what in JOBS.items():
            _build(name, f"jobs {what}")
        op.execute(f"CREATE INDEX IF NOT EXISTS {FEED} ON ONLY events (tenant, epoch, xid, pos)")
        taken_in = _children(FEED)
        for partition in _children("events"):
            index = f"{partition}_tenant"
            if index not in taken_in:
                _build(index, f"{partition} (tenant, epoch, xid, pos)")
                op.execute(f"ALTER INDEX {FEED} ATTACH PARTITION {index}")


def _build(name: str, what: str) -> None:
    op.execute(f"DROP INDEX IF EXISTS {name}")  # half built by a run that broke off
    op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {what}")


def _children(parent: str) -> list[str]:
    found = sa.text(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(:parent) ORDER BY 1"
    )
    return [str(row[0]) for row in op.get_bind().execute(found, {"parent": parent})]


def downgrade() -> None:
    op.drop_index(FEED, "events")
    for name in JOBS:
        op.drop_index(name, "jobs")

"""Row level security, the second wall between tenants: whoever names one sees its rows alone (docs/decisions/0005-tenants.md).

A connection that never set `phaseline.tenant` sees all, as committer, sweeper, hub and workers must, and as processes of the
version before do. The owner of the tables, and a superuser, are not held by it.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# In a subquery it is read once a statement, not once a row. Set to nothing it is of no tenant.
_NAMED = "(SELECT current_setting('phaseline.tenant', true))"
_OWN = {
    "jobs": f"{_NAMED} IS NULL OR tenant = {_NAMED}",
    "events": f"{_NAMED} IS NULL OR tenant = {_NAMED}",
    "job_tags": f"{_NAMED} IS NULL OR tenant = {_NAMED}",
    "stream_passes": f"{_NAMED} IS NULL OR tenant = {_NAMED}",
    "artifacts": f"{_NAMED} IS NULL OR EXISTS (SELECT FROM jobs WHERE id = job_id)",  # of which the policy shows its own
}


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, own in _OWN.items():
        op.execute(f"CREATE POLICY {table}_of_tenant ON {table} USING ({own})")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in _OWN:
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        op.execute(f"DROP POLICY {table}_of_tenant ON {table}")

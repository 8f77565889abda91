"""The second wall around what came since: schedules, webhooks and their deliveries (as 0012)."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_NAMED = "(SELECT current_setting('phaseline.tenant', true))"
_TABLES = ("schedules", "webhooks", "deliveries", "delivery_attempts")


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in _TABLES:
        op.execute(f"CREATE POLICY {table}_of_tenant ON {table} USING ({_NAMED} IS NULL OR tenant = {_NAMED})")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        op.execute(f"DROP POLICY {table}_of_tenant ON {table}")

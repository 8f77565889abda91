"""Of a job that was told to wait (`not_before`), `opened_at` is when it may first start: its limits count from there."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_SAID = {  # in ms, of a time such as 2026-11-24T08:00:00.000Z; `jobs.not_before` may be a retry's by now
    "postgresql": "SELECT round(extract(epoch FROM (data::json->>'not_before')::timestamptz) * 1000)::bigint",
    "sqlite": "SELECT CAST(round((julianday(json_extract(data, '$.not_before')) - 2440587.5) * 86400000) AS INTEGER)",
}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    said = f"{_SAID[dialect]} FROM events WHERE events.job_id = jobs.id AND events.seq = 1"
    op.execute(
        f"UPDATE jobs SET opened_at = ({said}) "  # noqa: S608 texts of this file
        f"WHERE not_before IS NOT NULL AND opened_at = created_at AND ({said}) > opened_at"
    )


def downgrade() -> None:
    op.execute(
        "UPDATE jobs SET opened_at = created_at WHERE opened_at > created_at "
        "AND NOT EXISTS (SELECT 1 FROM events WHERE events.job_id = jobs.id AND events.type = 'reopened')"
    )

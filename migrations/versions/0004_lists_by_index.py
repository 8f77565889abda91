"""Indexes for lists: by tag, by engine, by age.

Tags are a JSON array in `jobs`; triggers keep one row a tag beside it, whoever writes: an older version too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")


def upgrade() -> None:
    op.create_index("ix_jobs_tenant_engine", "jobs", ["tenant", "engine", "id"])
    op.create_index("ix_jobs_tenant_created", "jobs", ["tenant", "created_at", "id"])
    op.create_table(
        "job_tags",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("job_id", Id, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "tag", "job_id", name="pk_job_tags"),
    )
    if op.get_bind().dialect.name == "postgresql":
        _on_postgres()
    else:
        _on_sqlite()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION phaseline_keep_tags() CASCADE")
    else:
        for when in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER jobs_tags_{when}")
    op.drop_table("job_tags")
    op.drop_index("ix_jobs_tenant_created", "jobs")
    op.drop_index("ix_jobs_tenant_engine", "jobs")


def _on_postgres() -> None:
    # The conditions stand at the triggers, so that a job without tags costs no call.
    op.execute("""
        CREATE FUNCTION phaseline_keep_tags() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP <> 'INSERT' THEN
                DELETE FROM job_tags WHERE tenant = OLD.tenant AND job_id = OLD.id
                    AND tag IN (SELECT jsonb_array_elements_text(OLD.tags::jsonb));
            END IF;
            IF TG_OP <> 'DELETE' THEN
                INSERT INTO job_tags (tenant, tag, job_id)
                SELECT DISTINCT NEW.tenant, jsonb_array_elements_text(NEW.tags::jsonb), NEW.id;
            END IF;
            RETURN NULL;
        END $$""")
    for when, condition in (
        ("INSERT", "NEW.tags <> '[]'"),
        ("UPDATE OF tags", "OLD.tags <> NEW.tags"),
        ("DELETE", "OLD.tags <> '[]'"),
    ):
        op.execute(
            f"CREATE TRIGGER jobs_tags_{when.split()[0].lower()} AFTER {when} ON jobs "
            f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION phaseline_keep_tags()"
        )
    op.execute(
        "INSERT INTO job_tags (tenant, tag, job_id) "
        "SELECT DISTINCT tenant, jsonb_array_elements_text(tags::jsonb), id FROM jobs WHERE tags <> '[]'"
    )


def _on_sqlite() -> None:
    added = (
        "INSERT INTO job_tags (tenant, tag, job_id) SELECT DISTINCT NEW.tenant, value, NEW.id FROM json_each(NEW.tags);"
    )
    removed = "DELETE FROM job_tags WHERE tenant = OLD.tenant AND job_id = OLD.id AND tag IN (SELECT value FROM json_each(OLD.tags));"
    for when, condition, work in (
        ("INSERT", "NEW.tags <> '[]'", added),
        ("UPDATE OF tags", "OLD.tags <> NEW.tags", f"{removed} {added}"),
        ("DELETE", "OLD.tags <> '[]'", removed),
    ):
        op.execute(
            f"CREATE TRIGGER jobs_tags_{when.split()[0].lower()} AFTER {when} ON jobs WHEN {condition} BEGIN {work} END"
        )
    op.execute(
        "INSERT INTO job_tags (tenant, tag, job_id) "
        "SELECT DISTINCT jobs.tenant, value, jobs.id FROM jobs, json_each(jobs.tags) WHERE jobs.tags <> '[]'"
    )

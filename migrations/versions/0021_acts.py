"""Administrative acts as events: which streams are acts, and whose.

Their events are refused changes as all are. On SQLite, where a stream may be deleted once its job's row is gone, an act's row
here stands for the job's.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0019"
branch_labels = None
depends_on = None

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
NAMED = "(SELECT current_setting('phaseline.tenant', true))"  # as in revision 0012


def upgrade() -> None:
    op.create_table(
        "acts",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_acts"),
    )
    op.create_index("ix_acts_tenant", "acts", ["tenant", "job_id"])
    if op.get_bind().dialect.name == "postgresql":
        _on_postgres()
    else:
        _on_sqlite()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION phaseline_refuse_acts() CASCADE")
    else:
        _refuse_deletes_of(("jobs", "id"))
    op.drop_table("acts")


def _on_postgres() -> None:
    op.execute(f"CREATE POLICY acts_of_tenant ON acts USING ({NAMED} IS NULL OR tenant = {NAMED})")
    op.execute("ALTER TABLE acts ENABLE ROW LEVEL SECURITY")
    op.execute("""
        CREATE FUNCTION phaseline_refuse_acts() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'acts are append-only' USING ERRCODE = 'restrict_violation'; END $$""")
    for event, each in (("change BEFORE UPDATE OR DELETE", "ROW"), ("truncate BEFORE TRUNCATE", "STATEMENT")):
        op.execute(f"CREATE TRIGGER acts_no_{event} ON acts FOR EACH {each} EXECUTE FUNCTION phaseline_refuse_acts()")


def _on_sqlite() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER acts_no_{change.lower()} BEFORE {change} ON acts "
            "BEGIN SELECT RAISE(ABORT, 'acts are append-only'); END"
        )
    _refuse_deletes_of(("jobs", "id"), ("acts", "job_id"))


def _refuse_deletes_of(*rows: tuple[str, str]) -> None:
    there = " OR ".join(f"EXISTS (SELECT 1 FROM {table} WHERE {key} = OLD.job_id)" for table, key in rows)  # noqa: S608 constants
    op.execute("DROP TRIGGER events_no_delete")
    op.execute(
        f"CREATE TRIGGER events_no_delete BEFORE DELETE ON events WHEN {there} "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only while their job exists'); END"
    )

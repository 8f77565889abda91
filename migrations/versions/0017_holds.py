"""Legal holds: who held which job, or let it go, and why. A held job cannot be erased.

The trigger on `erasures` refuses, whoever erases; the one on `holds` waits for an erasure under way, so that after a hold was
recorded none comes any more.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
HELD = "(SELECT held FROM holds WHERE job_id = NEW.job_id ORDER BY no DESC LIMIT 1)"


def upgrade() -> None:
    op.create_table(
        "holds",
        sa.Column("no", Serial, autoincrement=True, nullable=False),
        sa.Column("job_id", Id, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("no", name="pk_holds"),
    )
    op.create_index("ix_holds_job_id", "holds", ["job_id", "no"])
    if op.get_bind().dialect.name == "postgresql":
        _on_postgres()
    else:
        _on_sqlite()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for function in ("phaseline_refuse_held", "phaseline_wait_for_erasure", "phaseline_refuse_holds"):
            op.execute(f"DROP FUNCTION {function}() CASCADE")
    else:
        op.execute("DROP TRIGGER erasures_no_held")
    op.drop_table("holds")


def _on_postgres() -> None:
    named = "(SELECT current_setting('phaseline.tenant', true))"  # as in revision 0012
    op.execute(f"CREATE POLICY holds_of_tenant ON holds USING ({named} IS NULL OR tenant = {named})")
    op.execute("ALTER TABLE holds ENABLE ROW LEVEL SECURITY")
    op.execute(f"""
        CREATE FUNCTION phaseline_refuse_held() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF {HELD} THEN RAISE EXCEPTION 'the job is held' USING ERRCODE = 'restrict_violation'; END IF;
            RETURN NEW;
        END $$""")
    op.execute(
        "CREATE TRIGGER erasures_no_held BEFORE INSERT ON erasures FOR EACH ROW EXECUTE FUNCTION phaseline_refuse_held()"
    )
    op.execute("""
        CREATE FUNCTION phaseline_wait_for_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM FROM jobs WHERE id = NEW.job_id FOR SHARE; RETURN NEW; END $$""")
    op.execute(
        "CREATE TRIGGER holds_wait BEFORE INSERT ON holds FOR EACH ROW EXECUTE FUNCTION phaseline_wait_for_erasure()"
    )
    op.execute("""
        CREATE FUNCTION phaseline_refuse_holds() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'holds are append-only' USING ERRCODE = 'restrict_violation'; END $$""")
    for event, each in (("change BEFORE UPDATE OR DELETE", "ROW"), ("truncate BEFORE TRUNCATE", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER holds_no_{event} ON holds FOR EACH {each} EXECUTE FUNCTION phaseline_refuse_holds()"
        )


def _on_sqlite() -> None:
    op.execute(
        f"CREATE TRIGGER erasures_no_held BEFORE INSERT ON erasures WHEN {HELD} "
        "BEGIN SELECT RAISE(ABORT, 'the job is held'); END"
    )
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER holds_no_{change.lower()} BEFORE {change} ON holds "
            "BEGIN SELECT RAISE(ABORT, 'holds are append-only'); END"
        )

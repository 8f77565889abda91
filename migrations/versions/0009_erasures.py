"""Erasures: a job's payload goes, its envelopes and digests stay; who erased it and why is recorded.

On PostgreSQL only through a function of the migrating role, which nobody else may call. The trigger that refuses changes
lets one through: data and size of an event of a job whose erasure is recorded, nothing else.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
KEPT = (
    "job_id", "seq", "type", "version", "attempt", "actor", "tenant", "at", "command_id", "digest", "epoch", "pos",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("through_seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "through_seq", name="pk_erasures"),
    )
    if op.get_bind().dialect.name == "postgresql":
        _on_postgres()
    else:
        _on_sqlite()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION phaseline_erase(uuid, bigint[], text[], text, text)")
        op.execute("""
            CREATE OR REPLACE FUNCTION phaseline_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'events are append-only' USING ERRCODE = 'restrict_violation'; END $$""")
    else:
        op.execute("DROP TRIGGER events_no_update")
        op.execute(
            "CREATE TRIGGER events_no_update BEFORE UPDATE ON events "
            "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
        )
    op.drop_table("erasures")


def _on_postgres() -> None:
    kept = ", ".join(f"{{0}}.{name}" for name in (*KEPT, "xid"))
    op.execute(f"""
        CREATE OR REPLACE FUNCTION phaseline_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' THEN
                IF ({kept.format("NEW")}) IS NOT DISTINCT FROM ({kept.format("OLD")})
                    AND EXISTS (SELECT FROM erasures WHERE job_id = OLD.job_id AND through_seq >= OLD.seq)
                THEN RETURN NEW; END IF;
            END IF;
            RAISE EXCEPTION 'events are append-only' USING ERRCODE = 'restrict_violation';
        END $$""")
    op.execute("""
        CREATE FUNCTION phaseline_erase(job uuid, seqs bigint[], texts text[], who text, why text) RETURNS void
        LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
        DECLARE ended bigint;
        BEGIN
            SELECT last_seq INTO ended FROM jobs
                WHERE id = job AND status IN ('completed', 'failed', 'cancelled') FOR UPDATE;
            IF ended IS NULL OR ended <> cardinality(seqs) THEN
                RAISE EXCEPTION 'only a job that has ended can be erased, and as it stands' USING ERRCODE = 'restrict_violation';
            END IF;
            INSERT INTO erasures (job_id, through_seq, at, actor, reason)
                VALUES (job, ended, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, who, why)
                ON CONFLICT DO NOTHING;
            UPDATE events AS e SET data = v.data, size = length(v.data)
                FROM unnest(seqs, texts) AS v (seq, data) WHERE e.job_id = job AND e.seq = v.seq AND e.data <> v.data;
            DELETE FROM artifacts WHERE job_id = job;
        END $$""")
    for event, each in (("change BEFORE UPDATE OR DELETE", "ROW"), ("truncate BEFORE TRUNCATE", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER erasures_no_{event} ON erasures FOR EACH {each} EXECUTE FUNCTION phaseline_refuse_seals()"
        )
    op.execute("REVOKE EXECUTE ON FUNCTION phaseline_erase(uuid, bigint[], text[], text, text) FROM PUBLIC")


def _on_sqlite() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER erasures_no_{change.lower()} BEFORE {change} ON erasures "
            "BEGIN SELECT RAISE(ABORT, 'erasures are append-only'); END"
        )
    same = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in KEPT)
    op.execute("DROP TRIGGER events_no_update")
    op.execute(
        f"CREATE TRIGGER events_no_update BEFORE UPDATE ON events WHEN NOT ({same} AND EXISTS "  # noqa: S608 constants
        "(SELECT 1 FROM erasures WHERE job_id = OLD.job_id AND through_seq >= OLD.seq)) "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
    )

"""Retention: jobs that went to the archive, and pins, which keep one.

On PostgreSQL a job is taken out, and a partition dropped, only through functions of the migrating role, which judge
themselves whether it may go: the application's role can delete neither.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
_NAMED = "(SELECT current_setting('phaseline.tenant', true))"  # as in revision 0012


def upgrade() -> None:
    op.create_table(
        "archived",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("place", sa.Text),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_archived"),
    )
    op.create_index("ix_archived_tenant", "archived", ["tenant", "job_id"])
    op.create_index("ix_archived_place", "archived", ["place"])
    op.create_table(
        "pins",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_pins"),
    )
    if op.get_bind().dialect.name == "postgresql":
        _on_postgres()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION phaseline_archive(uuid[], bigint[], text[], bigint[], bigint[], boolean[])")
        op.execute("ALTER FUNCTION phaseline_wait_for_erasure() SECURITY INVOKER")
        op.execute("""
            CREATE OR REPLACE FUNCTION phaseline_wait_for_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM FROM jobs WHERE id = NEW.job_id FOR SHARE; RETURN NEW; END $$""")
        op.execute("DROP FUNCTION phaseline_drop_partition(bigint)")
    op.drop_table("pins")
    op.drop_table("archived")


def _on_postgres() -> None:
    for table in ("archived", "pins"):
        op.execute(f"CREATE POLICY {table}_of_tenant ON {table} USING ({_NAMED} IS NULL OR tenant = {_NAMED})")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(
        "CREATE TRIGGER pins_wait BEFORE INSERT OR UPDATE ON pins "
        "FOR EACH ROW EXECUTE FUNCTION phaseline_wait_for_erasure()"
    )
    # Of an archived job the erasure locks the record of where it is. The role that holds may not change that.
    op.execute("""
        CREATE OR REPLACE FUNCTION phaseline_wait_for_erasure() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
        BEGIN
            PERFORM FROM jobs WHERE id = NEW.job_id FOR SHARE;
            PERFORM FROM archived WHERE job_id = NEW.job_id FOR SHARE;
            RETURN NEW;
        END $$""")
    op.execute("""
        CREATE FUNCTION phaseline_archive(
            ids uuid[], seqs bigint[], places text[], starts bigint[], lengths bigint[], erasures_seen boolean[]
        )
        RETURNS SETOF uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
        BEGIN
            -- Locked by a statement of its own: the next one sees every pin and hold that was before it.
            PERFORM FROM jobs WHERE id = ANY (ids) ORDER BY id FOR UPDATE;
            RETURN QUERY
            WITH wanted AS (
                SELECT * FROM unnest(ids, seqs, places, starts, lengths, erasures_seen) AS w (id, seq, place, start, length, erased)
            ), gone AS (
                DELETE FROM jobs j USING wanted w
                WHERE j.id = w.id AND j.last_seq = w.seq AND j.status IN ('completed', 'failed', 'cancelled')
                    AND NOT EXISTS (SELECT FROM pins p WHERE p.job_id = j.id)
                    AND NOT EXISTS (SELECT FROM deliveries d WHERE d.job_id = j.id AND d.state = 'pending')
                    AND EXISTS (SELECT FROM sealed s WHERE s.job_id = j.id AND s.last_seq >= w.seq)
                    AND EXISTS (SELECT FROM erasures x WHERE x.job_id = j.id) = w.erased
                    AND NOT coalesce((SELECT h.held FROM holds h WHERE h.job_id = j.id ORDER BY h.no DESC LIMIT 1), false)
                RETURNING j.id, j.tenant, j.engine, j.status, j.last_seq, j.finished_at
            ), bodies AS (
                DELETE FROM artifacts a USING gone g WHERE a.job_id = g.id
            )
            INSERT INTO archived (job_id, tenant, engine, status, last_seq, finished_at, at, place, start, length)
            SELECT g.id, g.tenant, g.engine, g.status, g.last_seq, g.finished_at,
                (extract(epoch FROM clock_timestamp()) * 1000)::bigint, w.place, w.start, w.length
            FROM gone g JOIN wanted w ON w.id = g.id RETURNING job_id;
        END $$""")
    op.execute("""
        CREATE FUNCTION phaseline_drop_partition(week bigint) RETURNS boolean
        LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
        DECLARE name text := 'events_w' || week; span bigint := 604800000; fresh text := name || '_acts';
            needed boolean; acts boolean; old boolean;
        BEGIN
            PERFORM pg_advisory_xact_lock(1885892979, 1);
            -- Ids are of the moment they were made: nothing new comes into a week that is two weeks old.
            IF to_regclass(name) IS NULL OR week + 2 > floor(extract(epoch FROM clock_timestamp()) / 604800)::bigint
            THEN RETURN false; END IF;
            IF EXISTS (SELECT FROM jobs WHERE id >= phaseline_uuid_at(week * span) AND id < phaseline_uuid_at((week + 1) * span))
            THEN RETURN false; END IF;
            EXECUTE format('SELECT coalesce(bool_or(NOT of_act AND NOT of_old), false), coalesce(bool_or(of_act), false), '
                'coalesce(bool_or(of_old), false) FROM (SELECT EXISTS (SELECT FROM acts a WHERE a.job_id = e.job_id) AS of_act, '
                'EXISTS (SELECT FROM archived a WHERE a.job_id = e.job_id) AS of_old FROM %I e) AS of', name)
                INTO needed, acts, old;
            IF needed OR (acts AND NOT old) THEN RETURN false; END IF;
            IF acts THEN  -- they stay for ever, and are few: alone in their partition from now on
                EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', fresh);
                EXECUTE format('INSERT INTO %I SELECT e.* FROM %I e JOIN acts a ON a.job_id = e.job_id', fresh, name);
                EXECUTE format('ALTER TABLE events DETACH PARTITION %I', name);
            END IF;
            EXECUTE format('DROP TABLE %I', name);
            IF acts THEN
                EXECUTE format('ALTER TABLE %I RENAME TO %I', fresh, name);
                EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                    name, phaseline_uuid_at(week * span), phaseline_uuid_at((week + 1) * span));
                EXECUTE format('CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON %I '
                    'FOR EACH STATEMENT EXECUTE FUNCTION phaseline_refuse()', name);
            END IF;
            RETURN true;
        END $$""")

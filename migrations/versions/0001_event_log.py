"""The event log: jobs, events, artifacts, and the fleet's tables.

On PostgreSQL `events` is partitioned by `job_id` (a UUIDv7 begins with its time), append-only by triggers, and its
partitions are made through a function of the migrating role. On SQLite the same promise is kept by triggers.
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
QUEUED = sa.text("status = 'queued'")
RUNNING = sa.text("status = 'running'")
HAS_KEY = sa.text("key_sha256 IS NOT NULL")


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    _jobs(postgres)
    _others()
    if postgres:
        _events_on_postgres()
    else:
        _events_on_sqlite()
    log = sa.table("log", sa.column("id"), sa.column("epoch"), sa.column("lineage"))
    op.bulk_insert(log, [{"id": 1, "epoch": 1, "lineage": secrets.token_hex(4)}])


def downgrade() -> None:
    for table in ("log", "leaders", "engines", "workers", "artifacts", "events", "jobs"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION phaseline_make_partition(bigint)")
        op.execute("DROP FUNCTION phaseline_uuid_at(bigint)")
        op.execute("DROP FUNCTION phaseline_refuse()")
        op.execute("DROP SEQUENCE IF EXISTS events_pos_seq")


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _int(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=nullable)


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _float(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Float, nullable=nullable)


def _jobs(postgres: bool) -> None:
    op.create_table(
        "jobs",
        sa.Column("id", Id, nullable=False),
        _text("tenant"),
        _text("engine"),
        _int("engine_version"),
        _text("params"),
        _text("phases"),
        _text("priority"),
        _int("max_attempts"),
        _int("max_losses"),
        _float("start_s", nullable=True),
        _float("attempt_s", nullable=True),
        _float("total_s", nullable=True),
        _float("stall_s", nullable=True),
        _text("tags"),
        sa.Column("rerun_of", Id),
        _text("from_phase", nullable=True),
        _text("key_sha256", nullable=True),
        _text("fingerprint", nullable=True),
        _big("created_at"),
        _big("opened_at"),
        _text("status"),
        _int("attempt"),
        _int("failures"),
        _int("losses"),
        _text("lease_id", nullable=True),
        _text("worker_id", nullable=True),
        _big("last_seq"),
        _big("last_at"),
        _float("progress"),
        _text("phase", nullable=True),
        _big("rank"),
        _big("not_before", nullable=True),
        _text("recorded_phases"),
        _big("started_at", nullable=True),
        _big("attempt_at", nullable=True),
        _big("finished_at", nullable=True),
        _text("cancel_mode", nullable=True),
        _big("cancel_at", nullable=True),
        _text("cancel_reason", nullable=True),
        _text("error", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_due", "jobs", ["engine", "rank"], postgresql_where=QUEUED, sqlite_where=QUEUED)
    op.create_index("ix_jobs_running", "jobs", ["worker_id"], postgresql_where=RUNNING, sqlite_where=RUNNING)
    op.create_index("ix_jobs_tenant_status", "jobs", ["tenant", "status", "id"])
    op.create_index("ix_jobs_tenant", "jobs", ["tenant", "id"])
    op.create_index(
        "uq_jobs_key", "jobs", ["tenant", "key_sha256"], unique=True, postgresql_where=HAS_KEY, sqlite_where=HAS_KEY
    )
    if postgres:
        # Room for HOT updates on each page, and a vacuum that keeps up with them.
        op.execute("ALTER TABLE jobs SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02)")


def _others() -> None:
    op.create_table(
        "artifacts",
        sa.Column("job_id", Id, nullable=False),
        _text("sha256"),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "sha256", name="pk_artifacts"),
    )
    op.create_table(
        "workers",
        _text("id"),
        _text("host"),
        _int("pid"),
        _text("build"),
        _int("slots"),
        _text("engines"),
        sa.Column("draining", sa.Boolean, nullable=False),
        _big("started_at"),
        _big("beat_at"),
        _big("lease_until"),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_table(
        "engines",
        _text("name"),
        _int("version"),
        _text("declaration"),
        sa.PrimaryKeyConstraint("name", name="pk_engines"),
    )
    op.create_table(
        "leaders",
        _text("name"),
        _text("holder"),
        _big("lease_until"),
        _text("cursor", nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_leaders"),
    )
    op.create_table(
        "log",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        _int("epoch"),
        _text("lineage"),
        sa.PrimaryKeyConstraint("id", name="pk_log"),
    )


def _events_on_sqlite() -> None:
    op.create_table(
        "events",
        sa.Column("pos", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("job_id", Id, nullable=False),
        _big("seq"),
        _text("type"),
        _int("version"),
        _int("attempt"),
        _text("actor"),
        _text("tenant"),
        _big("at"),
        _text("command_id"),
        _int("size"),
        _text("data"),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        _int("epoch"),
        sa.PrimaryKeyConstraint("pos", name="pk_events"),
        sa.UniqueConstraint("job_id", "seq", name="uq_events_job_id_seq"),
        sqlite_autoincrement=True,
    )
    op.execute(
        "CREATE TRIGGER events_no_update BEFORE UPDATE ON events "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
    )
    op.execute(
        "CREATE TRIGGER events_no_delete BEFORE DELETE ON events "
        "WHEN EXISTS (SELECT 1 FROM jobs WHERE id = OLD.job_id) "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only while their job exists'); END"
    )


def _events_on_postgres() -> None:
    op.execute("CREATE SEQUENCE events_pos_seq")
    op.execute("""
        CREATE TABLE events (
            job_id uuid NOT NULL, seq bigint NOT NULL, type text NOT NULL, version integer NOT NULL,
            attempt integer NOT NULL, actor text NOT NULL, tenant text NOT NULL, at bigint NOT NULL,
            command_id text NOT NULL, size integer NOT NULL, data text NOT NULL, digest bytea NOT NULL,
            epoch integer NOT NULL, xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            pos bigint NOT NULL DEFAULT nextval('events_pos_seq'),
            CONSTRAINT pk_events PRIMARY KEY (job_id, seq)
        ) PARTITION BY RANGE (job_id)""")
    op.execute("ALTER SEQUENCE events_pos_seq OWNED BY events.pos")
    # Always at its right edge, so cheap; it serves readers of the whole log.
    op.execute("CREATE INDEX ix_events_feed ON events (epoch, xid, pos)")
    op.execute("""
        CREATE FUNCTION phaseline_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'events are append-only' USING ERRCODE = 'restrict_violation'; END $$""")
    op.execute("""
        CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE ON events
        FOR EACH ROW EXECUTE FUNCTION phaseline_refuse()""")
    op.execute("""
        CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events
        FOR EACH STATEMENT EXECUTE FUNCTION phaseline_refuse()""")
    op.execute("""
        CREATE FUNCTION phaseline_uuid_at(ms bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (rpad(lpad(to_hex(ms), 12, '0'), 32, '0'))::uuid $$""")
    # SECURITY DEFINER: the application's role owns no table and makes partitions only through this.
    op.execute("""
        CREATE FUNCTION phaseline_make_partition(week bigint) RETURNS boolean
        LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
        DECLARE name text := 'events_w' || week; span bigint := 604800000;
        BEGIN
            PERFORM pg_advisory_xact_lock(1885892979, 1);
            IF to_regclass(name) IS NOT NULL THEN RETURN false; END IF;
            -- CREATE … PARTITION OF would lock the parent against every reader; ATTACH of an empty table does not.
            EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
            EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_insert_scale_factor = 0.02)', name);
            EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                name, phaseline_uuid_at(week * span), phaseline_uuid_at((week + 1) * span));
            EXECUTE format('CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON %I '
                'FOR EACH STATEMENT EXECUTE FUNCTION phaseline_refuse()', name);
            RETURN true;
        END $$""")
    op.execute("""
        SELECT phaseline_make_partition(floor(extract(epoch FROM now()) / 604800)::bigint + ahead)
        FROM generate_series(0, 4) AS ahead""")

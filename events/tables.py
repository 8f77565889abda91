"""The tables, for both dialects; `migrations/` makes them, `tests/integration` compares (test_migrations.py, test_indexes.py).

Ids are UUIDs (text on SQLite), instants are BIGINT milliseconds, JSON is kept as exact text. An index over some rows says so for
PostgreSQL; the migrations make SQLite's over the same: saying it here too would load SQLite's dialect into every process.
"""

from dataclasses import fields

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from events.job import Job

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMING)
Id = Uuid(as_uuid=False).with_variant(String(36), "sqlite")
Serial = BigInteger().with_variant(Integer(), "sqlite")

# Columns of `jobs` that never change after `submitted`.
FIXED = (
    "id", "tenant", "engine", "engine_version", "phases", "priority", "max_attempts", "max_losses",
    "start_s", "attempt_s", "total_s", "stall_s", "created_at",
)  # fmt: skip
LIFECYCLE = tuple(field.name for field in fields(Job))
CHANGING = tuple(name for name in LIFECYCLE if name not in FIXED)
# The columns of `jobs` beside the lifecycle, in the order of `JobRow`.
DETAILS = (
    "params", "tags", "rerun_of", "from_phase", "key_sha256", "fingerprint", "subject",
    "unique_key", "schedule", "webhook", "concurrency_key", "concurrency_limit",
)  # fmt: skip

UNFINISHED = "uq_jobs_unfinished"  # the index that lets a unique key have one unfinished job

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("engine_version", Integer, nullable=False),
    Column("params", Text, nullable=False),
    Column("phases", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("max_losses", Integer, nullable=False),
    Column("start_s", Float),
    Column("attempt_s", Float),
    Column("total_s", Float),
    Column("stall_s", Float),
    Column("tags", Text, nullable=False),
    Column("rerun_of", Id),
    Column("from_phase", Text),
    Column("key_sha256", Text),
    Column("fingerprint", Text),
    Column("subject", Text),
    Column("unique_key", Text),
    Column("schedule", Text),
    Column("webhook", Text),
    Column("concurrency_key", Text),
    Column("concurrency_limit", Integer),
    Column("created_at", BigInteger, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("lease_id", Text),
    Column("worker_id", Text),
    Column("last_seq", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("progress", Float, nullable=False),
    Column("phase", Text),
    Column("rank", BigInteger, nullable=False),
    Column("not_before", BigInteger),
    Column("recorded_phases", Text, nullable=False),
    Column("started_at", BigInteger),
    Column("attempt_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("cancel_mode", Text),
    Column("cancel_at", BigInteger),
    Column("cancel_reason", Text),
    Column("error", Text),
    # None of these covers a column that changes at each event, so that updates stay HOT on Postgres.
    Index(
        "ix_jobs_due",
        "engine",
        "rank",
        postgresql_where=text("status = 'queued'"),
    ),
    Index(
        "ix_jobs_share",
        "tenant",
        "engine",
        "rank",
        postgresql_where=text("status = 'queued'"),
    ),
    Index(
        "ix_jobs_concurrency",
        "status",
        "tenant",
        "concurrency_key",
        postgresql_where=text("concurrency_key IS NOT NULL AND status IN ('queued', 'running')"),
    ),
    Index(
        "ix_jobs_alone",
        "engine",
        "engine_version",
        postgresql_where=text("status = 'queued' AND losses >= 2"),
    ),
    # What the leader asks every second: is any job due, has a deadline of one that waits passed.
    Index(
        "ix_jobs_ready",
        "not_before",
        postgresql_where=text("status = 'queued' AND losses < 2"),
    ),
    Index(
        "ix_jobs_timed",
        "id",
        postgresql_where=text("status = 'queued' AND (start_s IS NOT NULL OR total_s IS NOT NULL)"),
    ),
    Index(
        "ix_jobs_running",
        "worker_id",
        postgresql_where=text("status = 'running'"),
    ),
    Index("ix_jobs_tenant_status", "tenant", "status", "id"),
    Index("ix_jobs_tenant", "tenant", "id"),
    Index("ix_jobs_tenant_engine", "tenant", "engine", "id"),
    Index("ix_jobs_tenant_created", "tenant", "created_at", "id"),
    Index(
        "uq_jobs_key",
        "tenant",
        "key_sha256",
        unique=True,
        postgresql_where=text("key_sha256 IS NOT NULL"),
    ),
    Index(
        UNFINISHED,
        "tenant",
        "unique_key",
        unique=True,
        postgresql_where=text("unique_key IS NOT NULL AND status IN ('queued', 'running')"),
    ),
    Index(
        "ix_jobs_rerun_of",
        "rerun_of",
        "id",
        postgresql_where=text("rerun_of IS NOT NULL"),
    ),
    Index(
        "ix_jobs_subject",
        "tenant",
        "engine",
        "subject",
        "finished_at",
        postgresql_where=text("subject IS NOT NULL"),
    ),
    postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02},
)

# One row a tag, kept by triggers on `jobs`.
job_tags = Table(
    "job_tags",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("job_id", Id, primary_key=True),
)

_EVENT_COLUMNS = (
    ("job_id", Id), ("seq", BigInteger), ("type", Text), ("version", Integer), ("attempt", Integer), ("actor", Text),
    ("tenant", Text), ("at", BigInteger), ("command_id", Text), ("size", Integer), ("data", Text),
    ("digest", LargeBinary), ("epoch", Integer),
)  # fmt: skip

# On Postgres the migration makes this table itself: partitioned by job_id, `xid` and `pos` filled by defaults.
events = Table(
    "events",
    metadata,
    Column("pos", Serial, primary_key=True, autoincrement=True),
    *(Column(name, kind, nullable=False) for name, kind in _EVENT_COLUMNS),
    UniqueConstraint("job_id", "seq"),
    Index("ix_events_tenant", "tenant", "pos"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("sha256", Text, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("build", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("engines", Text, nullable=False),
    Column("draining", Boolean, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("beat_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
)

engines = Table(
    "engines",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("declaration", Text, nullable=False),
)

leaders = Table(
    "leaders",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("cursor", Text),
)

# The whole log's chain: one row a batch of events, in the order they were sealed (events/seal.py). Append-only.
seals = Table(
    "seals",
    metadata,
    Column("no", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("cursor", Text, nullable=False),
    Column("events", Integer, nullable=False),
    Column("ranges", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# Each job's chain: consecutive events that one seal covers. Append-only.
sealed = Table(
    "sealed",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("first_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("seal", BigInteger, nullable=False),
    Column("leaves", LargeBinary, nullable=False),
    Column("head", LargeBinary, nullable=False),
    Index("ix_sealed_seal", "seal", "job_id"),
)

# Who may call, for which tenant. Few rows: an operator makes them.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("used_at", BigInteger),
    Column("revoked_at", BigInteger),
)

# Jobs made again and again (events/schedules.py). `next_at` is null while one is paused.
schedules = Table(
    "schedules",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("cron", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("catch_up", Text, nullable=False),
    Column("catch_up_max", Integer, nullable=False),
    Column("job", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("next_at", BigInteger),
    Column("last_at", BigInteger),
    Column("last_job_id", Text),
    UniqueConstraint("tenant", "name"),
    Index(
        "ix_schedules_next_at",
        "next_at",
        postgresql_where=text("next_at IS NOT NULL"),
    ),
)

# What was done with each schedule, and by it. Append-only: it outlives the schedule.
schedule_acts = Table(
    "schedule_acts",
    metadata,
    Column("no", Serial, primary_key=True, autoincrement=True),
    Column("schedule_id", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("address", Text),
    Column("detail", Text),
    Index("ix_schedule_acts_schedule_id", "schedule_id", "no"),
)

# Whose payload was erased, up to which event, by whom and why.
erasures = Table(
    "erasures",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("through_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

# What pages without a key may watch, for hours (events/passes.py).
stream_passes = Table(
    "stream_passes",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("jobs", Text, nullable=False),
    Column("feed", Boolean, nullable=False),
    Column("origin", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Column("expires_at", BigInteger),
    Index("ix_stream_passes_tenant_created_at", "tenant", "created_at"),
)

# Of a tenant with webhooks: what signs them, and where they go when a job says nothing (events/webhooks.py).
webhooks = Table(
    "webhooks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("secret", Text, nullable=False),
    Column("previous", Text),
    Column("previous_until", BigInteger),
    Column("url", Text),
    Column("changed_at", BigInteger, nullable=False),
)

# What is owed to receivers: made by a trigger on `events`, with a job's terminal event.
deliveries = Table(
    "deliveries",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(
        "ix_deliveries_tenant",
        "tenant",
        "lane",
        "next_at",
        postgresql_where=text("state = 'pending'"),
    ),
)

# What became of each attempt. Append-only.
delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("tenant", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("status", Integer),
    Column("failure", Text),
    Column("duration_ms", Integer, nullable=False),
)

# Legal holds: every act. Append-only; the newest of a job says whether it is held (events/holds.py).
holds = Table(
    "holds",
    metadata,
    Column("no", Serial, primary_key=True, autoincrement=True),
    Column("job_id", Id, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("address", Text),
    Column("reason", Text, nullable=False),
    Index("ix_holds_job_id", "job_id", "no"),
)

# Which streams of `events` are administrative acts, and whose: what an act has instead of a job's row. Append-only.
acts = Table(
    "acts",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("tenant", Text, nullable=False),
    Index("ix_acts_tenant", "tenant", "job_id"),
)

# Jobs that retention took out, and where they are (events/archive.py); of one that was discarded there is no place.
archived = Table(
    "archived",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("place", Text),
    Column("start", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Index("ix_archived_tenant", "tenant", "job_id"),
    Index("ix_archived_place", "place"),
)

# Jobs that retention leaves alone (events/retention.py).
pins = Table(
    "pins",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("address", Text),
    Column("reason", Text, nullable=False),
)

# One row: which lineage of the log this is. A restore raises `epoch`.
log = Table(
    "log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("lineage", Text, nullable=False),
)

# One row: the oldest revision whose code may go on with this schema. A migration that takes something away raises it.
compatible = Table("compatible", metadata, Column("since", Text, primary_key=True))

REVISION = "0027"  # the schema this code needs; a test holds it against `migrations.head()`

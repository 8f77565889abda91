"""Completion webhooks: who has them, what is owed to whom, and what became of each attempt.

A trigger on `events` makes a delivery in the transaction of a job's terminal event, whoever writes it. It runs for those
events only; without a URL it makes nothing. An erasure takes the URLs of its job with it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
PENDING = sa.text("state = 'pending'")
ENDS = "NEW.type IN ('complete', 'error', 'cancelled')"
# A lane is a tenant and the scheme and host of a URL: see `lane_of` in events/webhook_url.py.
OWE = """
    INSERT {ignoring} INTO deliveries (job_id, seq, tenant, lane, url, state, attempts, next_at, created_at)
    SELECT NEW.job_id, NEW.seq, to_whom.tenant,
        to_whom.tenant || ' ' || substr(url, 1, 7 + {position}), url, 'pending', 0, NEW.at, NEW.at
    FROM (SELECT jobs.tenant AS tenant, coalesce(jobs.webhook, webhooks.url) AS url FROM jobs
        LEFT JOIN webhooks ON webhooks.tenant = jobs.tenant WHERE jobs.id = NEW.job_id) AS to_whom
    WHERE url IS NOT NULL {conflict};
"""
FORGET = "DELETE FROM deliveries WHERE job_id = NEW.job_id;"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("webhook", sa.Text))
    op.create_table(
        "webhooks",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("previous", sa.Text),
        sa.Column("previous_until", sa.BigInteger),
        sa.Column("url", sa.Text),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_webhooks"),
    )
    op.create_table(
        "deliveries",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "seq", name="pk_deliveries"),
    )
    op.create_index(
        "ix_deliveries_due", "deliveries", ["lane", "next_at"], postgresql_where=PENDING, sqlite_where=PENDING
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("failure", sa.Text),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "seq", "attempt", name="pk_delivery_attempts"),
    )
    if op.get_bind().dialect.name == "postgresql":
        _on_postgres()
    else:
        _on_sqlite()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for function in ("phaseline_owe", "phaseline_forget", "phaseline_refuse_attempts"):
            op.execute(f"DROP FUNCTION {function}() CASCADE")
    else:
        op.execute("DROP TRIGGER events_owe")
        op.execute("DROP TRIGGER erasures_forget")
    for table in ("delivery_attempts", "deliveries", "webhooks"):
        op.drop_table(table)
    op.drop_column("jobs", "webhook")


def _on_postgres() -> None:
    # Of the migrating role: who appends events needs no right to invent deliveries.
    owe = OWE.format(ignoring="", position="strpos(substr(url, 9) || '/', '/')", conflict="ON CONFLICT DO NOTHING")
    for name, work in (("phaseline_owe", owe), ("phaseline_forget", FORGET)):
        op.execute(f"""
            CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
            BEGIN {work} RETURN NULL; END $$""")
    op.execute(
        f"CREATE TRIGGER events_owe AFTER INSERT ON events FOR EACH ROW WHEN ({ENDS}) EXECUTE FUNCTION phaseline_owe()"
    )
    op.execute(
        "CREATE TRIGGER erasures_forget AFTER INSERT ON erasures FOR EACH ROW EXECUTE FUNCTION phaseline_forget()"
    )
    op.execute("""
        CREATE FUNCTION phaseline_refuse_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'attempts are append-only' USING ERRCODE = 'restrict_violation'; END $$""")
    for event, each in (("change BEFORE UPDATE OR DELETE", "ROW"), ("truncate BEFORE TRUNCATE", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER delivery_attempts_no_{event} ON delivery_attempts "
            f"FOR EACH {each} EXECUTE FUNCTION phaseline_refuse_attempts()"
        )


def _on_sqlite() -> None:
    owe = OWE.format(ignoring="OR IGNORE", position="instr(substr(url, 9) || '/', '/')", conflict="")
    op.execute(f"CREATE TRIGGER events_owe AFTER INSERT ON events WHEN {ENDS} BEGIN {owe} END")
    op.execute(f"CREATE TRIGGER erasures_forget AFTER INSERT ON erasures BEGIN {FORGET} END")
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER delivery_attempts_no_{change.lower()} BEFORE {change} ON delivery_attempts "
            "BEGIN SELECT RAISE(ABORT, 'attempts are append-only'); END"
        )

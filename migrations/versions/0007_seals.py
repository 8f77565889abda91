"""Seals: what makes a change of any stored event show (docs/decisions/0004-audit.md). Append-only by triggers, as events."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

Id = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
TABLES = ("seals", "sealed")


def upgrade() -> None:
    op.create_table(
        "seals",
        sa.Column("no", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("events", sa.Integer, nullable=False),
        sa.Column("ranges", sa.LargeBinary, nullable=False),
        sa.Column("previous", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("no", name="pk_seals"),
    )
    op.create_table(
        "sealed",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("first_seq", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("seal", sa.BigInteger, nullable=False),
        sa.Column("leaves", sa.LargeBinary, nullable=False),
        sa.Column("head", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "first_seq", name="pk_sealed"),
    )
    op.create_index("ix_sealed_seal", "sealed", ["seal", "job_id"])
    for table in TABLES:
        if op.get_bind().dialect.name == "postgresql":
            _on_postgres(table)
        else:
            _on_sqlite(table)


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION phaseline_refuse_seals()")


def _on_postgres(table: str) -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION phaseline_refuse_seals() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'seals are append-only' USING ERRCODE = 'restrict_violation'; END $$""")
    op.execute(
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION phaseline_refuse_seals()"
    )
    op.execute(
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION phaseline_refuse_seals()"
    )


def _on_sqlite(table: str) -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'seals are append-only'); END"
        )

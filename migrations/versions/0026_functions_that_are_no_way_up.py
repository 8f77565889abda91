"""Functions of the migrating role: whoever calls one cannot put a table of their own before the schema's, and only who appends
events may call one.

Without a place in `search_path` a session's temporary tables come first: with one of the name of `holds` a held job went, and
a trigger on one ran with the rights of the migrating role (PostgreSQL, "Writing SECURITY DEFINER Functions Safely").
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

CALLED = (  # by gateways and workers
    "phaseline_make_partition(bigint)",
    "phaseline_archive(uuid[], bigint[], text[], bigint[], bigint[], boolean[])",
    "phaseline_drop_partition(bigint)",
)
ERASE = "phaseline_erase(uuid, bigint[], text[], text, text)"
TRIGGERED = ("phaseline_owe()", "phaseline_forget()", "phaseline_wait_for_erasure()")  # which asks for no right


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    schema = _said("SELECT quote_ident(current_schema())")[0]
    for function in (*CALLED, *TRIGGERED, ERASE):
        op.execute(f"ALTER FUNCTION {function} SET search_path = {schema}, pg_temp")
    for function in (*CALLED, *TRIGGERED):
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    # Who works on this log now goes on; `phaseline db grant` gives it to roles made later.
    appending = _said(
        "SELECT DISTINCT grantee::regrole::text FROM pg_class, aclexplode(relacl) WHERE oid = 'events'::regclass "
        "AND privilege_type = 'INSERT' AND grantee <> 0 AND grantee <> relowner"
    )
    for role in appending:
        for function in CALLED:
            op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {role}")


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for function in (*CALLED, *TRIGGERED, ERASE):
        op.execute(f"ALTER FUNCTION {function} SET search_path FROM CURRENT")
    for function in (*CALLED, *TRIGGERED):
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")


def _said(query: str) -> list[str]:
    return [str(row[0]) for row in op.get_bind().execute(sa.text(query))]

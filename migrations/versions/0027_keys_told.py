"""What was never told of API keys is told once, as it stands now: an audit holds their rows against acts.

Keys of before revision 0021 have no act, those since have acts without the digest of the secret. One `key_recorded` for each of
them, in an audit stream of its own as any act (`events/acts.py`). Acts are append-only, so taking this back leaves them, and
doing it again tells nothing twice.
"""

import hashlib
import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op
from uuid_utils import uuid7

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

WEEK_MS = 7 * 24 * 3600 * 1000
REASON = "it was there before acts told of all that this one tells; as it stood at migration 0027"
KEYS = "SELECT id, tenant, name, sha256, scopes, expires_at, revoked_at FROM api_keys ORDER BY created_at, id"
ACTS = "SELECT e.data FROM acts a JOIN events e ON e.job_id = a.job_id AND e.seq = 1"
EVENT = (
    "INSERT INTO events (job_id, seq, type, version, attempt, actor, tenant, at, command_id, size, data, digest, epoch) "
    "VALUES ({id}, 1, 'administered', 1, 0, 'system:migration', :tenant, :at, :command_id, :size, :data, :digest, "
    "(SELECT epoch FROM log))"
)
ACT = "INSERT INTO acts (job_id, tenant) VALUES ({id}, :tenant)"


def upgrade() -> None:
    bind = op.get_bind()
    keys = bind.execute(sa.text(KEYS)).all()  # before the acts: what tells of a key was committed with it
    if not keys:
        return
    told = {
        act["target"] for (data,) in bind.execute(sa.text(ACTS)) if "sha256" in (act := json.loads(data))["changed"]
    }
    at = time.time_ns() // 1_000_000
    postgres = bind.dialect.name == "postgresql"
    if postgres:
        bind.execute(sa.text("SELECT phaseline_make_partition(:week)"), {"week": at // WEEK_MS})
    given = "CAST(:id AS uuid)" if postgres else ":id"
    for key in keys:
        if key.id not in told:
            data = json.dumps(_told(key), ensure_ascii=False, separators=(",", ":"))
            stored = {"at": at, "command_id": str(uuid.uuid4()), "size": len(data), "data": data}
            stored |= {"digest": hashlib.sha256(data.encode()).digest()}
            whose = {"id": str(uuid7(nanoseconds=at * 1_000_000)), "tenant": key.tenant}
            bind.execute(sa.text(EVENT.format(id=given)), whose | stored)
            bind.execute(sa.text(ACT.format(id=given)), whose)


def downgrade() -> None:
    """Nothing: acts stay."""


def _told(key: Any) -> dict[str, Any]:
    changed = {"name": key.name, "scopes": key.scopes.split(), "expires_at": _rfc3339(key.expires_at)}
    changed |= {"revoked": key.revoked_at is not None, "sha256": bytes(key.sha256).hex()}
    return {"act": "key_recorded", "target": key.id, "changed": changed, "reason": REASON}


def _rfc3339(instant_ms: int | None) -> str | None:
    if instant_ms is None:
        return None
    second = datetime.fromtimestamp(instant_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{second}.{instant_ms % 1000:03d}Z"

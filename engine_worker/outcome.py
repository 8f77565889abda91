"""Values an engine hands over, as events carry them: inline, or over 256 KiB stored apart and referred to. PURE."""

from typing import Any

from events.batch import digest_of
from events.catalog import Checkpoint, Outcome, Ref
from events.log import Artifact
from events.values import decode

INLINE_BYTES_MAX = 256 * 1024


def outcome_of(job_id: str, body: bytes) -> tuple[Outcome, Artifact | None]:
    """A result, from its exact JSON bytes; no bytes is no result."""
    if not body:
        return Outcome(), None
    value, ref, artifact = _stored(job_id, body, f"/api/v1/jobs/{job_id}/results")
    return Outcome(value=value, ref=ref), artifact


def checkpoint_of(job_id: str, phase: str, duration_ms: int, body: bytes) -> tuple[Checkpoint, Artifact | None]:
    """A phase's output, from its exact JSON bytes."""
    digest = digest_of(body)
    value, ref, artifact = _stored(job_id, body, f"/api/v1/jobs/{job_id}/artifacts/{digest}")
    return Checkpoint(phase=phase, output=value, output_ref=ref, digest=digest, duration_ms=duration_ms), artifact


def _stored(job_id: str, body: bytes, url: str) -> tuple[Any, Ref | None, Artifact | None]:
    if len(body) <= INLINE_BYTES_MAX:
        return decode(body), None, None
    ref = Ref(url=url, sha256=digest_of(body), size=len(body))
    return None, ref, Artifact(job_id, ref.sha256, body)

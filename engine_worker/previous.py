"""The job before, about the same subject: what its engine returned, for an engine that looks back at it."""

from typing import Any

from events.batch import Claimed, digest_of
from events.catalog import Complete
from events.log import Log
from events.values import decode, encode

BYTES_MAX = 1024 * 1024  # a larger result is named, not handed over: it travels with the params


async def previous_result(log: Log, claimed: Claimed) -> dict[str, Any] | None:
    """The fields of a `Previous`, for the child. None when no job about the same subject had completed when this one was
    submitted: so every attempt is told the same. Raises `LogUnavailable`."""
    if claimed.subject is None or (row := await log.previous(claimed.job, claimed.subject)) is None:
        return None
    page = await log.read(row.job.id, row.job.last_seq - 1, limit=1)
    event = page[0].event() if page else None
    if not isinstance(event, Complete):
        return None  # its events were erased meanwhile
    ref = event.results_ref
    body: bytes | None
    if ref is None:
        body = encode(event.results)
        sha256 = digest_of(body)
    else:
        sha256 = ref.sha256
        body = await log.artifact(row.job.id, sha256) if ref.size <= BYTES_MAX else None
    return {
        "job_id": row.job.id,
        "ended_at": row.job.finished_at,
        "sha256": sha256,
        "result": None if body is None else decode(body),
    }

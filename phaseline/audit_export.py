"""`phaseline audit export`: events and seals as NDJSON with a manifest, for whoever keeps or checks them elsewhere.

`events.ndjson` holds each event with the columns its leaf covers and its exact `data` as text, by job and sequence;
`sealed.ndjson` and `seals.ndjson` the chains; `manifest.json` the counts, each file's SHA-256, the newest seal, and as `unread`
how many jobs lie in an archive nobody named: of those the chains alone are there.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from events.audit import event_line, seal_line
from events.errors import PhaselineError
from events.retention import Archived
from events.seal_log import SealLog
from events.values import encode

FILES = ("events.ndjson", "sealed.ndjson", "seals.ndjson")
PROGRESS_EVENTS = 10_000


async def export(
    log: SealLog, folder: Path, *, job_id: str | None = None, progress: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Writes everything, or one job, into an empty folder and returns the manifest, which is written last: a folder
    without one is half an export. Raises `PhaselineError` when something is there already, `LogUnavailable`, `OSError`."""
    await asyncio.to_thread(_empty, folder)
    last = await log.last_seal()
    through = last.no if last else 0
    archived = _ArchivedJobs(log.all_archived(job_id))
    sources: dict[str, AsyncIterator[dict[str, Any]]] = {
        "events.ndjson": _events(log, job_id, archived, progress),
        "sealed.ndjson": _ranges(log, through, job_id),
        "seals.ndjson": _seals(log, through),
    }
    files = {name: await _write(folder / name, rows) for name, rows in sources.items()}
    manifest = {
        "format": "phaseline audit export 1",
        "at": await log.now(),
        "job_id": job_id,
        "files": files,
        "unread": archived.unread,
        "seal": {"no": last.no, "hash": last.hash.hex()} if last else None,
    }
    (folder / "manifest.json").write_bytes(encode(manifest) + b"\n")
    return manifest


def _empty(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise PhaselineError(f"{folder} is not empty; an export takes a folder of its own")


async def _write(path: Path, rows: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    digest, lines, size = hashlib.sha256(), 0, 0
    with path.open("xb") as file:
        async for row in rows:
            line = encode(row) + b"\n"
            file.write(line)
            digest.update(line)
            lines += 1
            size += len(line)
    return {"lines": lines, "bytes": size, "sha256": digest.hexdigest()}


class _ArchivedJobs:
    """Records of archived jobs, and how many of those read so far had no events among the log's. Both come by job id."""

    def __init__(self, records: AsyncIterator[Archived]) -> None:
        self.unread = 0
        self._records = records
        self._next: Archived | None = None

    async def before(self, job_id: str | None) -> None:
        """The next events are of this job; None: there are no more."""
        while True:
            record = self._next or await anext(self._records, None)
            if record is None:
                return
            if job_id is not None and record.job_id > job_id:
                self._next = record
                return
            self.unread += record.place is not None and record.job_id != job_id
            self._next = None


async def _events(
    log: SealLog, job_id: str | None, archived: _ArchivedJobs, progress: Callable[[int], None]
) -> AsyncIterator[dict[str, Any]]:
    count = 0
    last: str | None = None
    async for stored in log.stored(job_id):
        if stored.envelope.job_id != last:
            last = stored.envelope.job_id
            await archived.before(last)
        yield event_line(stored)
        count += 1
        if count % PROGRESS_EVENTS == 0:
            progress(count)
    await archived.before(None)


async def _ranges(log: SealLog, through: int, job_id: str | None) -> AsyncIterator[dict[str, Any]]:
    async for one in log.ranges(through, job_id):
        yield seal_line(one)


async def _seals(log: SealLog, through: int) -> AsyncIterator[dict[str, Any]]:
    async for seal in log.bare_seals(0, through):
        yield seal_line(seal)

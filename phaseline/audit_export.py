"""`phaseline audit export`: events and seals as NDJSON with a manifest, for whoever keeps or checks them elsewhere.

`events.ndjson` holds each event with the columns its leaf covers and its exact `data` as text, by job and sequence;
`sealed.ndjson` and `seals.ndjson` the chains; `manifest.json` the counts, each file's SHA-256 and the newest seal.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from events.audit import event_line, seal_line
from events.errors import PhaselineError
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
    sources: dict[str, AsyncIterator[dict[str, Any]]] = {
        "events.ndjson": _events(log, job_id, progress),
        "sealed.ndjson": _ranges(log, through, job_id),
        "seals.ndjson": _seals(log, through),
    }
    files = {name: await _write(folder / name, rows) for name, rows in sources.items()}
    manifest = {
        "format": "phaseline audit export 1",
        "at": await log.now(),
        "job_id": job_id,
        "files": files,
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


async def _events(log: SealLog, job_id: str | None, progress: Callable[[int], None]) -> AsyncIterator[dict[str, Any]]:
    count = 0
    async for stored in log.stored(job_id):
        yield event_line(stored)
        count += 1
        if count % PROGRESS_EVENTS == 0:
            progress(count)


async def _ranges(log: SealLog, through: int, job_id: str | None) -> AsyncIterator[dict[str, Any]]:
    async for one in log.ranges(through, job_id):
        yield seal_line(one)


async def _seals(log: SealLog, through: int) -> AsyncIterator[dict[str, Any]]:
    async for seal in log.bare_seals(0, through):
        yield seal_line(seal)

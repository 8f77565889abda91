"""The audit's commands on a log of their own: opened, asked, closed."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from events import audit
from events.errors import PhaselineError
from events.seal_log import SealLog
from events.sealer import Sealer
from phaseline import anchors, audit_export, database
from phaseline.settings import Settings


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[SealLog]:
    log = database.make_log(settings)
    try:
        await log.open()
        yield log
    finally:
        await log.close()


async def verify(
    settings: Settings,
    *,
    job_id: str | None,
    folder: Path | None,
    public_key: str | None,
    progress: Callable[[audit.Report], None],
) -> audit.Report:
    """Audits the log, and holds it against the anchors in `folder`, which `public_key` signed."""
    key = anchors.public_key(public_key) if public_key is not None else None
    async with _opened(settings) as log:
        report = await audit.verify(log, job_id=job_id, progress=progress)
        if folder is not None and key is not None:
            good, findings = await anchors.hold(log, folder, key)
            report.anchors = len(good)
            report.anchored_seal = good[-1].seal if good else None
            for finding in findings:
                report.add(finding)
        return report


async def export(
    settings: Settings, folder: Path, *, job_id: str | None, progress: Callable[[int], None]
) -> dict[str, Any]:
    """Writes an export and returns its manifest."""
    async with _opened(settings) as log:
        return await audit_export.export(log, folder, job_id=job_id, progress=progress)


async def anchor(settings: Settings) -> Path:
    """Seals what there is and anchors it now. Raises `PhaselineError` when no key or folder is set, or nothing is sealed."""
    if settings.anchor_key_file is None or settings.anchors_dir is None:
        raise PhaselineError("an anchor needs PHASELINE_ANCHOR_KEY_FILE and PHASELINE_ANCHORS_DIR")
    key = anchors.private_key(settings.anchor_key_file)
    log = database.make_log(settings)
    try:
        await log.open()
        await Sealer(log, log, "audit").seal()
        last = await log.last_seal()
        if last is None:
            raise PhaselineError("there is nothing to anchor: the log is empty")
        return await anchors.AnchorWriter(log, settings.anchors_dir, key, 0.0).write(last)
    finally:
        await log.close()

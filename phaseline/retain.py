"""Retention on a log of its own: what it would do, one pass now, pins. Each opens what it needs and closes it again."""

import uuid
from collections.abc import Callable

from events.acts import By
from events.archiver import Archiver, Pass
from events.errors import JobArchived, PhaselineError, UnknownJob
from events.retention import Waiting
from phaseline import archives, database
from phaseline.settings import Misconfigured, Settings


async def plan(settings: Settings) -> list[Waiting]:
    """What each rule comes to now; nothing is changed. Raises `Misconfigured` without rules."""
    rules = archives.rules(settings)
    _some(rules)
    async with database.opened(settings) as log:
        return await log.waiting_for_archive(rules)


async def run(settings: Settings, progress: Callable[[Pass], None]) -> Pass:
    """One pass over everything that is due. Raises `Misconfigured` without rules, `PhaselineError` while another process
    is at it."""
    rules = archives.rules(settings)
    _some(rules)
    async with database.opened(settings) as log:
        done = await Archiver(log, archives.make_store(settings), rules, str(uuid.uuid4()), 0.0).sweep(progress)
    if done is None:
        raise PhaselineError(
            "another process is at it, or died at it within ten minutes; what is due goes with its pass"
        )
    return done


async def pin(settings: Settings, job_id: str, *, actor: str, reason: str) -> None:
    """Keeps a job whatever the rules say. Raises `UnknownJob`, `JobArchived`."""
    async with database.opened(settings) as log:
        if await log.archived([job_id]):
            raise JobArchived
        row = await log.job(job_id)
        if row is None:
            raise UnknownJob
        await log.pin(job_id, row.job.tenant, By(actor, None, reason))


async def unpin(settings: Settings, job_id: str, *, actor: str, reason: str) -> bool:
    """Lets retention have a job again; False when it was not pinned."""
    async with database.opened(settings) as log:
        return await log.unpin(job_id, By(actor, None, reason))


def _some(rules: object) -> None:
    if not rules:
        raise Misconfigured(
            "everything is kept: PHASELINE_RETENTION says how long, as in completed=30d, failed=180d, fpl.completed=365d"
        )

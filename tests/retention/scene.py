"""What tests of retention do: jobs of every fate, sealed, some of them weeks old; passes of the archiver."""

import hashlib
from pathlib import Path
from typing import Any

import uuid_utils

from events.archiver import Archiver, Pass
from events.log import Artifact
from events.record import Recorded
from events.retention import parse_rules
from phaseline import archives
from phaseline.settings import Settings
from tests.audit.scene import Scene as AuditScene
from tests.builders import a_finish, a_report, a_submit, progress, whole_stream

WEEK_MS = 7 * 24 * 3600 * 1000
ALL = "completed=0s, failed=0s, cancelled=0s"


def settings_in(settings: Settings, rules: str = "completed=0s") -> dict[str, str]:
    """What a process needs in its environment to work on the same log and archive."""
    found = {"PHASELINE_RETENTION": rules, "PHASELINE_ARCHIVE": settings.archive}
    if settings.database_url:
        return found | {"PHASELINE_DATABASE_URL": settings.database_url}
    return found | {"PHASELINE_DATA_DIR": str(settings.data_dir)}


class Scene(AuditScene):
    """One installation with an archive."""

    @property
    def folder(self) -> Path:
        """Where its archive lies."""
        return Path(self.settings.archive)

    async def completed(self, value: Any = None, *, weeks_ago: int = 0, large: bytes = b"") -> str:
        """A job that completed, whose id is of so many weeks ago, in a partition of that week; with a large value."""
        made = await self.log.now() - weeks_ago * WEEK_MS
        job_id = str(uuid_utils.uuid7(nanoseconds=made * 1_000_000))
        if weeks_ago and self.log.name == "postgresql":
            async with self.log._writer.begin() as connection:
                await connection.exec_driver_sql(f"SELECT phaseline_make_partition({made // WEEK_MS})")
        await self.running.committer.submit(a_submit(), tenant="default", job_id=job_id)
        claimed = next(one for one in await self.running.claim(slots=100) if one.job.id == job_id)
        values = [Artifact(job_id, hashlib.sha256(large).hexdigest(), large)] if large else []
        await self.running.committer.execute(job_id, a_report(claimed, progress(1)), artifacts=values)
        await self.running.committer.execute(job_id, a_finish(claimed, value))
        return job_id

    async def sweep(self, rules: str = ALL, *, seal: bool = True, discard: bool = False) -> Pass:
        """Seals what there is, and one pass of retention."""
        if seal:
            await self.sealer.seal()
        done = await self.archiver(rules=rules, discard=discard).sweep()
        assert done is not None
        return done

    def archiver(self, *, rules: str = ALL, discard: bool = False) -> Archiver:
        """An archiver that sweeps when it is told to."""
        store = None if discard else archives.make_store(self.settings)
        return Archiver(self.log, store, parse_rules(rules), "test", 1.0)

    async def streams(self, *job_ids: str) -> list[list[Recorded]]:
        """All events of these jobs."""
        return [await whole_stream(self.log, job_id) for job_id in job_ids]

    async def rows_of(self, table: str, job_id: str) -> int:
        """How many rows of a table are of a job."""
        async with self.log._writer.begin() as connection:
            column = "id" if table == "jobs" else "job_id"
            found = await connection.exec_driver_sql(f"SELECT count(*) FROM {table} WHERE {column} = '{job_id}'")
            return int(found.scalar_one())

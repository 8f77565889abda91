"""The archiver: takes jobs out whose time has come. Runs in every process that has rules; a leader lease lets one act.

A job goes only when it is sealed to its end, so that its archived events can be held against the audit's chain. First its
object is written and read back, then its manifest; only then is the job taken out of the database, by one transaction
that judges again whether it may go. A death in between leaves an object nobody names, which goes after a day.
"""

import asyncio
import logging
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

from events import crash_points
from events.archive import is_ours, object_of, put_object, week_of
from events.archive_member import JOB_BYTES_MAX, JobTooLarge, MemberWriter
from events.archive_store import PART, ArchiveStore, ArchiveUnavailable
from events.clock import Clock, monotonic, rfc3339
from events.errors import Unavailable
from events.log import FEED_BYTES_MAX, Log
from events.retention import WEEK_MS, Archived, Due, RetentionLog, Rule, gone_to, id_at
from events.seal_log import SealLog, Stored
from events.telemetry import Telemetry

OBJECT_BYTES = 64 * 1024 * 1024  # an object is closed once it is larger
OBJECT_JOBS_MAX = 1000
LEFT_S = 24 * 3600.0  # older than that is no object that is still to be named
TIDY_EVERY_S = 3600.0
LEAD_S = 600.0  # so long nobody else begins when the one that archives stands still

_log = logging.getLogger(__name__)


class Source(Log, SealLog, RetentionLog, Protocol):
    """The log as the archiver needs it."""


@dataclass(slots=True)
class Pass:
    """What one pass did. `parts`: partitions dropped, on SQLite jobs whose events were deleted."""

    jobs: int = 0
    events: int = 0
    objects: int = 0
    bytes: int = 0
    parts: int = 0


class Archiver:
    """`store` None: what is due is discarded."""

    def __init__(
        self,
        log: Source,
        store: ArchiveStore | None,
        rules: Sequence[Rule],
        holder: str,
        every_s: float,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._source = log
        self._store = store
        self._rules = rules
        self._holder = holder
        self._every_s = every_s
        self._tidy_at = float("-inf")  # monotonic
        self._metrics = (telemetry or Telemetry()).retention

    async def run(self) -> None:
        """Archives until cancelled; a failing pass is logged and tried again."""
        while True:
            pause_s = min(self._every_s, 60.0)
            try:
                done = await self.sweep()
                if done is not None:
                    pause_s = self._every_s
            except Unavailable as away:
                self._metrics.failed.inc()
                _log.warning("retention: %s", away)
            except Exception:  # a boundary: a pass that breaks must not end the process
                self._metrics.failed.inc()
                _log.exception("retention failed and is tried again")
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.0))  # noqa: S311 jitter, so that processes spread

    async def sweep(self, progress: Callable[[Pass], None] = lambda _: None) -> Pass | None:
        """One pass over everything that is due; None when another process leads. Raises `Unavailable`, `OSError`."""
        done = Pass()
        if self._store is not None:
            await self._store.begin(anew=not await self._source.archives_any())
        if not await self._leads():
            return None
        first = await self._source.first_job()
        # A week at a time, as long as there are jobs: each question looks at a part of them.
        for week in range(week_of(first), await self._source.now() // WEEK_MS + 1) if first else ():
            if not await self._take_out_of(week, done, progress):
                return None
        done.parts = await self._source.drop_archived()
        await self._tidy()
        return done

    async def _take_out_of(self, week: int, done: Pass, progress: Callable[[Pass], None]) -> bool:
        """What is due of the jobs made in this week. False when another process leads by now."""
        after, before = id_at(week * WEEK_MS), id_at((week + 1) * WEEK_MS)
        while due := await self._source.due_for_archive(self._rules, OBJECT_JOBS_MAX, after, before):
            after = due[-1].job_id
            sealed = await self._source.heads_sealed([one.job_id for one in due])
            ready = [one for one in due if sealed.get(one.job_id, (0, b""))[0] >= one.last_seq]
            await self._take_out(ready, {job: head for job, (_, head) in sealed.items()}, done)
            progress(done)
            if not await self._leads():
                return False
        return True

    async def _tidy(self) -> None:
        """Removes what a death between two steps left in the archive: of an erased job it may hold the payload."""
        if self._store is None or monotonic() < self._tidy_at:
            return
        self._tidy_at = monotonic() + TIDY_EVERY_S
        old = await self._store.names(Clock().now_ms() / 1000 - LEFT_S)
        named = await self._source.places() if old else set()
        for name in old:
            if is_ours(name, self._source.epoch) and (object_of(name) not in named or name.endswith(PART)):
                await self._store.delete(name)
                _log.info("retention removed %s from the archive, in which no job lies", name)

    async def _leads(self) -> bool:
        return await self._source.lead("retention", self._holder, LEAD_S)

    async def _take_out(self, jobs: list[Due], heads: Mapping[str, bytes], done: Pass) -> None:
        """A few jobs at a time, until all of them went."""
        erased = {one.job_id for one in jobs if one.erased}
        while jobs:
            if self._store is None:
                went, looked = [gone_to(one, None, 0, 0) for one in jobs], len(jobs)
            else:
                begun = monotonic()
                with tempfile.TemporaryDirectory(prefix="phaseline-archive-") as folder:
                    went, looked = await self._write(self._store, Path(folder), jobs, heads, done)
                crash_points.reached("retention.written")
                if monotonic() - begun > LEFT_S / 2:
                    raise ArchiveUnavailable(
                        "the archive took too long: what was put there may be removed as left over"
                    )
            jobs = jobs[looked:]
            if not went:
                continue
            gone = await self._source.put_archived(went, erased)
            crash_points.reached("retention.taken_out")
            done.jobs += len(gone)
            done.events += sum(one.last_seq for one in went if one.job_id in gone)
            self._metrics.jobs.labels("discarded" if self._store is None else "archived").inc(len(gone))
            for one in went:
                if one.job_id in gone:
                    _log.info("job %s: retention %s it", one.job_id, "archived" if one.place else "discarded",
                              extra={"job_id": one.job_id})  # fmt: skip

    async def _write(
        self, store: ArchiveStore, folder: Path, jobs: Sequence[Due], heads: Mapping[str, bytes], done: Pass
    ) -> tuple[list[Archived], int]:
        """Makes an object of the first of these jobs, as many as fit, and reads it back. Returns those in it, and how many were
        looked at: one that is too large for any archive stays."""
        path, members, looked = folder / "object", list[tuple[Due, int, int]](), 0
        with path.open("w+b") as file:
            for one in jobs:
                looked += 1
                try:
                    start, length = await self._member(file, one)
                except JobTooLarge:
                    _log.warning("job %s is too large for an archive and stays: over %d GiB", one.job_id,
                                 JOB_BYTES_MAX >> 30, extra={"job_id": one.job_id})  # fmt: skip
                    continue
                members.append((one, start, length))
                if file.tell() >= OBJECT_BYTES:
                    break
        if not members:
            return [], looked
        jobs_in_it = [
            {**asdict(one), "finished_at": rfc3339(one.finished_at), "head": heads[one.job_id].hex(), "start": start,
             "length": length}
            for one, start, length in members
        ]  # fmt: skip
        name = await put_object(store, self._source.epoch, path, jobs_in_it)
        done.objects += 1
        done.bytes += path.stat().st_size
        return [gone_to(one, name, start, length) for one, start, length in members], looked

    async def _member(self, file: IO[bytes], one: Due) -> tuple[int, int]:
        member = MemberWriter(file, one, one.last_seq)
        try:
            await self._fill(member, one)
        except JobTooLarge:
            await asyncio.to_thread(member.undo)
            raise
        return member.start, await asyncio.to_thread(member.close)

    async def _fill(self, member: MemberWriter, one: Due) -> None:
        page: list[Stored] = []
        size = 0
        async for stored in self._source.stored(one.job_id):
            page.append(stored)
            size += stored.size
            if size >= FEED_BYTES_MAX:
                await asyncio.to_thread(member.events, page)
                page, size = [], 0
        await asyncio.to_thread(member.events, page)
        for sha256 in await self._source.artifact_names(one.job_id):
            body = await self._source.artifact(one.job_id, sha256)
            if body is not None:
                await asyncio.to_thread(member.value, sha256, body)

"""A batch of the committer that locks nothing: decided on what this process knows, written in one statement.

A transaction with locks costs a round trip for its beginning, its locks, what it writes and its commit. Whoever wrote a
job last mostly is who writes it next: the worker that runs it. So its state is known, and the statement that writes holds
it against the row, and the clock it was decided by against the database's. A mistake costs one more try, with locks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import asyncpg

from events import postgres_sql as sql
from events.errors import Stale
from events.job import Job
from events.log import Claimable, JobRow
from events.postgres_line import Claiming, PostgresTransaction
from events.record import Recorded
from events.rows_sql import event_arrays, job_columns


class PostgresUnlocked(PostgresTransaction):
    """What `Log.unlocked` gives: collects what a batch writes. `write` sends it."""

    CLAIMABLE: ClassVar[str] = sql.SEEN_CLAIMABLE
    CLAIMABLE_ALONE: ClassVar[str] = sql.SEEN_CLAIMABLE_ALONE

    def __init__(self, connection: Any, log: Claiming, known: Mapping[str, Job], clock: Callable[[], int]) -> None:
        super().__init__(connection, log)
        self._clock = clock
        self.drift_ms = (0, 0)
        self._known = known
        self._was: dict[str, Job] = {}
        self._made: list[JobRow] = []
        self._events: list[Recorded] = []
        self._changed: list[Job] = []

    async def now(self) -> int:
        if self._now is None:
            self._now = self._clock()
        return self._now

    async def lock(self, job_ids: Sequence[str]) -> dict[str, Job]:
        jobs = {job_id: self._known[job_id] for job_id in job_ids}
        self._was |= jobs
        return jobs

    async def insert_jobs(self, rows: Sequence[JobRow]) -> dict[str, JobRow]:
        self._made += rows
        return {}

    async def append(self, events: Sequence[Recorded], jobs: Sequence[Job] = ()) -> None:
        self._events += events
        self._changed += jobs

    async def claimable(
        self, worker_ids: Sequence[str], wanted: Mapping[tuple[str, int], int], *, careful: bool
    ) -> Claimable:
        found = await super().claimable(worker_ids, wanted, careful=careful)
        self._was |= {row.job.id: row.job for row in found.due}
        return found

    async def _shared(self, *_: object, **__: object) -> list[JobRow]:
        raise Stale("what several want is counted under locks")

    async def write(self) -> None:
        """Raises `Stale` when a job is not as it was, or a new one's key is taken."""
        if not self._events:
            return
        at, sent = self._now, self._clock()
        columns: list[Any] = [at]
        columns += event_arrays(self._events, sql.EVENT_TYPES)
        if self._made:
            columns += sql.arrays([job_columns(row) for row in self._made], sql.JOB_TYPES)
        if self._changed:
            changed = sorted(self._changed, key=lambda job: job.id)  # in the order in which others lock
            columns += [[getattr(job, name) for job in changed] for name in sql.SAVE_TYPES]
            columns += [[getattr(self._was[job.id], name) for job in changed] for name in ("last_seq", "lease_id")]
        statement = sql.UNLOCKED[bool(self._made), bool(self._changed)]
        try:
            self.epoch, clock, _ = await self._connection.fetchrow(statement, *columns)
        except (asyncpg.DivisionByZeroError, asyncpg.UniqueViolationError) as changed_since:
            raise Stale("somebody else was first, or the clock was off") from changed_since
        self.drift_ms = (clock - self._clock(), clock - sent)  # it arrived between the two

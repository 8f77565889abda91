"""A whole worker on a real log and bus, with real child processes, and what a test asks of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import psutil

from engine_worker.options import WorkerOptions
from engine_worker.supervisor import Supervisor
from events.announce import Announcer
from events.batch import Committed
from events.bus_memory import MemoryBus
from events.catalog import Cancel, Expire, PhaseEnd, Submit, Submitted, Timeouts
from events.committer import Committer, new_command_id
from events.declaration import Engine, installed_engines, subject_of
from events.errors import StillAlive
from events.log import Log, WorkerRow
from events.record import Recorded
from tests.builders import whole_stream

MODULES = ("tests.worker.engines_for_tests",)
OPTIONS = WorkerOptions(slots=1, lease_s=3.0, beat_s=0.3, poll_s=0.5, drain_s=5.0, engine_modules=MODULES)
WAIT_S = 30.0


class Scene:
    """Submits jobs and watches what is recorded."""

    def __init__(self, log: Log, bus: MemoryBus) -> None:
        self.log = log
        self.bus = bus
        self._announce = Announcer(bus)
        self.committer = Committer(log, self._committed)
        self.engines: dict[str, Engine] = installed_engines(MODULES)
        self._news = asyncio.Condition()
        self._seen: list[Recorded] = []
        self._group: asyncio.TaskGroup | None = None

    def _committed(self, committed: Committed) -> None:
        self._announce(committed)
        self._seen += committed.events
        assert self._group
        self._group.create_task(self._tell())

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def submit(
        self,
        engine: str,
        *,
        timeouts: Timeouts | None = None,
        max_attempts: int = 3,
        tenant: str = "default",
        **params: Any,
    ) -> str:
        """Submits a job and returns its id."""
        declared = self.engines[engine]
        submitted = Submitted(
            engine=engine,
            engine_version=declared.version,
            params=params,
            phases=tuple(PhaseEnd(name=phase.name, until=phase.until) for phase in declared.phases),
            timeouts=timeouts or Timeouts(),
            max_attempts=max_attempts,
            subject=subject_of(declared.params_schema(), params),
        )
        command = Submit(command_id=new_command_id(), actor="user:test", submitted=submitted)
        row, _ = await self.committer.submit(command, tenant=tenant)
        return row.job.id

    async def cancel(self, job_id: str, **fields: Any) -> None:
        """Asks a job to stop."""
        await self.committer.execute(job_id, Cancel(command_id=new_command_id(), actor="user:test", **fields))

    async def expire_lost(self, job_id: str) -> None:
        """What a sweeper does about a job whose worker has no lease any more."""
        row = await self.log.job(job_id)
        assert row
        command = Expire(command_id=new_command_id(), actor="system:sweeper", attempt=row.job.attempt, cause="lost")
        while True:
            await self.log.leave(row.job.worker_id or "")
            try:
                await self.committer.execute(job_id, command)
            except StillAlive:
                continue  # the worker beat in between
            return

    async def lose(self, job_id: str) -> None:
        """Claims a job as a worker that then dies."""
        row = await self.log.job(job_id)
        assert row
        dying = WorkerRow("dying", "host", 1, "", 1, {row.job.engine: row.job.engine_version})
        await self.log.beat(dying, 60.0)
        await self.committer.claim(dying.id, dying.engines, 1, idle=True)
        await self.expire_lost(job_id)

    async def event(self, job_id: str, *types: str, where: Callable[[Any], bool] = lambda _: True) -> Recorded:
        """The first event of one of these types, waiting for it."""

        def found() -> Recorded | None:
            return next(
                (row for row in self._seen if row.job_id == job_id and row.type in types and where(row.event())), None
            )

        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(lambda: found() is not None)
        row = found()
        assert row
        return row

    def seen(self, kind: str) -> list[str]:
        """The jobs of the events of this type so far."""
        return [row.job_id for row in self._seen if row.type == kind]

    async def until_seen(self, kind: str, count: int) -> None:
        """Waits for so many events of this type."""
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(lambda: len(self.seen(kind)) >= count)

    async def end(self, job_id: str) -> list[Recorded]:
        """The whole stream of a job, once it ended."""
        await self.event(job_id, "complete", "error", "cancelled")
        return await whole_stream(self.log, job_id)

    @asynccontextmanager
    async def worker(self, **changes: Any) -> AsyncIterator[Supervisor]:
        """A worker for the block; after it everything is given back or ended at once."""
        supervisor = Supervisor(
            self.log, self.bus, self.committer, self.engines, replace(OPTIONS, **changes), draw=lambda: 0.0
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(supervisor.run())
            try:
                yield supervisor
            finally:
                with suppress(TimeoutError):
                    async with asyncio.timeout(20):
                        await asyncio.gather(supervisor.drain(), supervisor.drain())
                running.cancel()

    @asynccontextmanager
    async def on(self) -> AsyncIterator["Scene"]:
        """Runs the committer for the block."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            task = group.create_task(self.committer.run())
            try:
                yield self
            finally:
                task.cancel()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not, once its last thread has ended: nobody can wait for it before."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


async def gone(*pids: int) -> None:
    """Returns when these processes ended. Nothing signals the end of another's child: it is asked for, bounded."""
    async with asyncio.timeout(WAIT_S):
        while any(map(alive, pids)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

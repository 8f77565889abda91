"""Builders for tests: a job, a worker, a report, with everything that does not matter left out."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from events.batch import Claimed, Committed
from events.catalog import (
    AttemptError,
    Cancel,
    Expire,
    Fail,
    Finish,
    Idempotency,
    Outcome,
    PhaseEnd,
    Progress,
    Reopen,
    Report,
    Said,
    Submit,
    Submitted,
)
from events.committer import Committer, new_command_id
from events.log import Log, WorkerRow
from events.record import Recorded
from events.telemetry import Telemetry

PHASES = (PhaseEnd(name="collecting_data", until=25), PhaseEnd(name="finalizing", until=100))


def a_submit(engine: str = "countdown", *, key: str | None = None, body: str = "body", **fields: Any) -> Submit:
    """A submit of a job for `engine`; with `key` an idempotent one whose fingerprint is `body`."""
    idempotency = Idempotency(key_sha256=key, fingerprint=body) if key else None
    required = {"engine": engine, "engine_version": 1, "params": {}, "phases": PHASES, "idempotency": idempotency}
    submitted = Submitted.model_validate(required | fields)
    return Submit(command_id=new_command_id(), actor="user:test", submitted=submitted)


def a_worker(worker_id: str = "w1", engine: str = "countdown", slots: int = 4) -> WorkerRow:
    """A worker process that runs `engine`."""
    return WorkerRow(worker_id, "host", 1, "build", slots, {engine: 1})


def a_report(claimed: Claimed, *said: Said) -> Report:
    """What the engine of a claimed job said."""
    return Report(**fence(claimed), said=said)


def a_finish(claimed: Claimed, value: Any = None) -> Finish:
    """The engine of a claimed job returned `value`."""
    return Finish(**fence(claimed), outcome=Outcome(value=value))


def a_failure(claimed: Claimed, *, retryable: bool = True, draw: float = 0.0) -> Fail:
    """The engine of a claimed job raised."""
    error = AttemptError(type="ValueError", message="boom", code="engine_error", retryable=retryable)
    return Fail(**fence(claimed), error=error, draw=draw)


def a_cancel(mode: str = "graceful", **fields: Any) -> Cancel:
    """A cancel by a person."""
    return Cancel.model_validate({"command_id": new_command_id(), "actor": "user:test", "mode": mode} | fields)


def a_reopen() -> Reopen:
    """A retry by a person."""
    return Reopen(command_id=new_command_id(), actor="user:test")


def an_expiry(attempt: int, cause: str = "lost") -> Expire:
    """The sweeper's word on an overdue job."""
    return Expire.model_validate(
        {"command_id": new_command_id(), "actor": "system:sweeper", "attempt": attempt, "cause": cause}
    )


def progress(percent: float = 10.0, phase: str = "collecting_data") -> Progress:
    """A progress event."""
    return Progress(progress=percent, phase=phase)


def story(recorded: Sequence[Recorded]) -> list[tuple[int, str]]:
    """A stream as a failure should print it."""
    return [(row.seq, row.type) for row in recorded]


async def whole_stream(log: Log, job_id: str) -> list[Recorded]:
    """Every event of a job."""
    events: list[Recorded] = []
    while page := await log.read(job_id, events[-1].seq if events else 0):
        events += page
    return events


class Committing:
    """A running committer with what a test does most: submit, claim as a living worker, finish."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.committed: list[Committed] = []
        self.telemetry = Telemetry()
        self.committer = Committer(log, self.committed.append, telemetry=self.telemetry)

    async def submit(self, engine: str = "countdown", *, tenant: str = "default", **fields: Any) -> str:
        row, _ = await self.committer.submit(a_submit(engine, **fields), tenant=tenant)
        return row.job.id

    async def claim(
        self,
        worker_id: str = "w1",
        slots: int = 1,
        *,
        engine: str = "countdown",
        idle: bool = True,
        lease_s: float = 60.0,
    ) -> list[Claimed]:
        worker = replace(a_worker(worker_id, engine), slots=slots)
        await self.log.beat(worker, lease_s)
        return await self.committer.claim(worker_id, worker.engines, slots, idle=idle)

    async def started(self, engine: str = "countdown", **fields: Any) -> Claimed:
        """A job just claimed."""
        job_id = await self.submit(engine, **fields)
        return next(claimed for claimed in await self.claim(slots=100, engine=engine) if claimed.job.id == job_id)


@asynccontextmanager
async def committing(log: Log) -> AsyncIterator[Committing]:
    """Runs a committer on `log` for the block."""
    running = Committing(log)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(running.committer.run())
        try:
            yield running
        finally:
            task.cancel()


def fence(claimed: Claimed) -> dict[str, Any]:
    """What a command of the attempt's worker carries."""
    job = claimed.job
    return {
        "command_id": new_command_id(),
        "actor": f"worker:{job.worker_id}",
        "attempt": job.attempt,
        "lease_id": job.lease_id,
    }

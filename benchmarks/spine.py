"""The log and the committer on PostgreSQL: appends, and the floor of raw multi-row inserts."""

import asyncio
import os
import time
import uuid
from typing import Any

import asyncpg

from benchmarks.measure import Figure, Results
from events.catalog import Progress
from events.log import Log
from tests.builders import Committing, a_report

BATCH = 100
OURS = "written_by_the_bench"  # an engine no worker runs: these jobs are ours


async def append_rates(running: Committing, url: str, results: Results, *, seconds: float, repeats: int) -> None:
    """Events a second: raw inserts in batches, the committer under load, the committer one by one."""
    results.add(await _raw_inserts(url, seconds, repeats))
    jobs = [await running.started(OURS) for _ in range(100)]
    loaded, single = [], []
    for _ in range(repeats):
        loaded.append(await _committer(running, jobs, seconds, workers=300))
        single.append(await _committer(running, jobs, seconds, workers=1))
    results.add(
        Figure(
            "append under load", "events/s", loaded, "300 writers of one event each over 100 jobs", "raw inserts by 100"
        )
    )
    results.add(Figure("append one by one", "events/s", single, "one writer, each waits for its commit"))


async def _committer(running: Committing, jobs: list[Any], seconds: float, *, workers: int) -> float:
    end = time.monotonic() + seconds
    count = 0

    async def write(number: int) -> None:
        nonlocal count
        claimed = jobs[number % len(jobs)]
        while time.monotonic() < end:
            said = (Progress(progress=0.0, phase="collecting_data", message="counting", done=1, total=2),)
            await running.committer.execute(claimed.job.id, a_report(claimed, *said))
            count += 1

    began = time.monotonic()
    await asyncio.gather(*(write(number) for number in range(workers)))
    return count / (time.monotonic() - began)


async def _raw_inserts(url: str, seconds: float, repeats: int) -> Figure:
    """The same columns and indexes, no locks, no decisions: what the driver and the server can do."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "CREATE TABLE raw (job_id uuid, seq bigint, type text, data text, digest bytea, at bigint, actor text, "
            "PRIMARY KEY (job_id, seq))"
        )
        rates = [await _insert_for(connection, seconds) for _ in range(repeats)]
    finally:
        await connection.close()
    return Figure("raw inserts by 100", "events/s", rates, "asyncpg, unnest of 100 rows, one commit each, fsync on")


async def _insert_for(connection: Any, seconds: float) -> float:
    data = '{"progress":0.0,"phase":"collecting_data","message":"counting","done":1.0,"total":2.0}'
    digest = os.urandom(32)
    jobs = [str(uuid.uuid4()) for _ in range(BATCH)]
    count, seq = 0, 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        seq += 1
        await connection.execute(
            "INSERT INTO raw SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bytea[], "
            "$6::bigint[], $7::text[])",
            jobs,
            [seq] * BATCH,
            ["progress"] * BATCH,
            [data] * BATCH,
            [digest] * BATCH,
            [seq] * BATCH,
            ["worker:w1"] * BATCH,
        )
        count += BATCH
    return count / (time.monotonic() - began)


async def long_stream(running: Committing, log: Log, events: int) -> str:
    """A finished-looking job with about `events` events; returns its id."""
    claimed = await running.started(OURS)
    said = tuple(
        Progress(progress=0.0, phase="collecting_data", message="counting", done=n, total=events) for n in range(500)
    )
    while (head := await log.head(claimed.job.id)) is not None and head.seq < events:
        await running.committer.execute(claimed.job.id, a_report(claimed, *said))
    return claimed.job.id

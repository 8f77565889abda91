"""Fills a log by COPY with copies of a true job: what would take hours to run takes seconds to write.

A template job is made by the committer; its rows are copied with other ids, so that whatever the schema holds is filled
as the product fills it. Ids are UUIDv7 of the hours before now; their partition is made when it is missing.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg
import uuid_utils

from benchmarks.bench import Writer, an_event
from tests.builders import a_finish, a_report

WEEK_MS = 7 * 24 * 3600 * 1000
_FILLED_BY_DATABASE = {"pos", "xid"}


async def fill_streams(writer: Writer, url: str, streams: int, events: int) -> list[str]:
    """So many finished jobs with so many events each; their ids."""
    connection: Any = await asyncpg.connect(url)
    try:
        template = await _template(writer, connection)
        ids = list(_ids(streams))
        await _partitions(connection)
        await connection.copy_records_to_table(
            "events", records=(row for job_id in ids for row in template.stream(job_id, events)), columns=template.event_columns
        )  # fmt: skip
        await connection.copy_records_to_table(
            "jobs",
            records=[template.job(job_id, {"last_seq": events}) for job_id in ids],
            columns=template.job_columns,
        )
        await connection.execute("ANALYZE jobs, events")
    finally:
        await connection.close()
    return ids


async def fill_jobs(writer: Writer, url: str, jobs: int, *, queued: int, engine: str) -> list[str]:
    """So many finished jobs of a few events each; the last `queued` of them are due instead and have only their first
    event. Their ids."""
    connection: Any = await asyncpg.connect(url)
    try:
        template = await _template(writer, connection, engine)
        ids = list(_ids(jobs))
        done = len(ids) - queued
        never = ("lease_id", "worker_id", "started_at", "attempt_at", "finished_at", "phase")
        waiting = dict.fromkeys(never) | {"status": "queued", "attempt": 0, "last_seq": 1, "progress": 0.0}
        await _partitions(connection)
        await connection.copy_records_to_table(
            "events",
            records=(
                row for n, job_id in enumerate(ids) for row in template.events_of(job_id, None if n < done else 1)
            ),
            columns=template.event_columns,
        )
        await connection.copy_records_to_table(
            "jobs",
            records=(template.job(job_id, {} if n < done else waiting) for n, job_id in enumerate(ids)),
            columns=template.job_columns,
        )
        await connection.execute("VACUUM ANALYZE jobs")
        await connection.execute("VACUUM ANALYZE events")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    return ids


class _Template:
    """The rows of a true job: submitted, started, one thing said, its end."""

    def __init__(self, job: Any, events: Sequence[Any]) -> None:
        self.job_columns = list(job.keys())
        self.event_columns = [name for name in events[0].keys() if name not in _FILLED_BY_DATABASE]  # noqa: SIM118
        self._job = dict(job)
        self._events = [[row[name] for name in self.event_columns] for row in events]
        self._id, self._seq = self.event_columns.index("job_id"), self.event_columns.index("seq")

    def job(self, job_id: str, changed: dict[str, Any]) -> tuple[Any, ...]:
        """Its `jobs` row under another id."""
        row = self._job | changed | {"id": job_id}
        return tuple(row[name] for name in self.job_columns)

    def events_of(self, job_id: str, count: int | None = None) -> Iterator[tuple[Any, ...]]:
        """Its events, or the first of them, under another id."""
        for row in self._events[:count]:
            yield self._moved(row, job_id, row[self._seq])

    def stream(self, job_id: str, events: int) -> Iterator[tuple[Any, ...]]:
        """Its stream with what the engine said as often as needed."""
        before, said, after = self._events[:2], self._events[2], self._events[3:]
        for seq, row in enumerate(before, 1):
            yield self._moved(row, job_id, seq)
        for seq in range(len(before) + 1, events - len(after) + 1):
            yield self._moved(said, job_id, seq)
        for seq, row in enumerate(after, events - len(after) + 1):
            yield self._moved(row, job_id, seq)

    def _moved(self, row: list[Any], job_id: str, seq: int) -> tuple[Any, ...]:
        moved = row.copy()
        moved[self._id], moved[self._seq] = job_id, seq
        return tuple(moved)


async def _template(writer: Writer, connection: Any, engine: str | None = None) -> _Template:
    (claimed,) = await writer.started(1)
    job_id = claimed.job.id
    await writer.committer.execute(job_id, a_report(claimed, an_event(1)))
    await writer.committer.execute(job_id, a_finish(claimed, 1))
    job = dict(await connection.fetchrow("SELECT * FROM jobs WHERE id = $1", job_id))
    events = await connection.fetch("SELECT * FROM events WHERE job_id = $1 ORDER BY seq", job_id)
    return _Template(job | ({"engine": engine} if engine else {}), events)


def _ids(count: int) -> Iterator[str]:
    """Rising UUIDv7 that begin a day ago, one a ms."""
    first_ms = time.time_ns() // 1_000_000 - 24 * 3600 * 1000
    for number in range(count):
        yield str(uuid_utils.uuid7(nanoseconds=(first_ms + number) * 1_000_000))


async def _partitions(connection: Any) -> None:
    week = time.time_ns() // 1_000_000 // WEEK_MS
    for one in (week - 1, week):
        await connection.execute("SELECT phaseline_make_partition($1)", one)

"""Rows of `jobs` and `events` and what they are in the spine, for both dialects; what a driver said."""

from collections.abc import Iterable, Sequence
from typing import Any

from events import tables as t
from events.job import Job
from events.log import (
    JobRow,
)
from events.record import Recorded
from events.values import decode, encode

NO_LIMIT = 2**31 - 1

RECORDED = tuple(t.events.c[name] for name in Recorded._fields)
JOB_ROW = (*(t.jobs.c[name] for name in t.LIFECYCLE), *(
    t.jobs.c[name] for name in t.DETAILS
))  # fmt: skip
_N = len(t.LIFECYCLE)


def to_job(row: Sequence[Any]) -> Job:
    """A `jobs` row's lifecycle columns, in `tables.LIFECYCLE` order."""
    return Job(*row[:_N])


def to_job_row(row: Sequence[Any]) -> JobRow:
    """A whole `jobs` row selected as `JOB_ROW`."""
    params, tags, *others = row[_N:]
    return JobRow(to_job(row), params, tuple(decode(tags)), *others)


def job_columns(row: JobRow) -> dict[str, Any]:
    """Every column of a `jobs` row."""
    return {
        **{name: getattr(row.job, name) for name in t.LIFECYCLE},
        "params": row.params,
        "tags": encode(list(row.tags)).decode(),
        "rerun_of": row.rerun_of,
        "from_phase": row.from_phase,
        "key_sha256": row.key_sha256,
        "fingerprint": row.fingerprint,
        "subject": row.subject,
        "unique_key": row.unique_key,
        "schedule": row.schedule,
        "webhook": row.webhook,
        "concurrency_key": row.concurrency_key,
        "concurrency_limit": row.concurrency_limit,
    }


def to_recorded(row: Sequence[Any]) -> Recorded:
    """An `events` row selected as `RECORDED`."""
    return Recorded(*row)


def winners(losers: Iterable[JobRow], found: Iterable[Sequence[Any]]) -> dict[str, JobRow]:
    """By the id of each loser, the row among those found (as `JOB_ROW`) that has its key."""
    by_key = {(row.job.tenant, row.key_sha256): row for row in map(to_job_row, found)}
    return {row.job.id: by_key[row.job.tenant, row.key_sha256] for row in losers}


def event_columns(recorded: Recorded) -> dict[str, Any]:
    """Every column of an `events` row but `epoch`, `pos` and `xid`."""
    return {
        **recorded._asdict(),
        "size": len(recorded.data),
        "digest": recorded.digest,
    }


def event_arrays(events: Sequence[Recorded], names: Iterable[str]) -> list[Sequence[Any]]:
    """`event_columns` of many, an array a column."""
    fields = zip(*events, strict=True) if events else ((),) * len(Recorded._fields)
    columns: dict[str, Sequence[Any]] = dict(zip(Recorded._fields, fields, strict=True))
    columns |= {"size": [len(one.data) for one in events], "digest": [one.digest for one in events]}
    return [columns[name] for name in names]


def first_line(error: BaseException) -> str:
    """What the driver said, without its hints."""
    return (str(getattr(error, "orig", None) or error) or type(error).__name__).partition("\n")[0]

"""`phaseline db erase`: a job's payload goes, its envelopes, digests and chain stay."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, text, update
from sqlalchemy.exc import DBAPIError

from events import tables as t
from events.acts import By, recorded_act
from events.clock import Clock
from events.erasure import redacted
from events.errors import PhaselineError, Refused, UnknownJob
from events.holds import is_held
from events.log import JobQuery, JobRow
from events.record import Recorded
from phaseline import database
from phaseline.erase_archived import erase_archived
from phaseline.records import is_erased, tell
from phaseline.settings import Settings

ALIKE_MAX = 1000  # jobs of one origin that are told
WAL_S = 10.0  # others' reads and writes end well before

_ERASE = text(
    "SELECT phaseline_erase(CAST(:job AS uuid), CAST(:seqs AS bigint[]), CAST(:texts AS text[]), :actor, :reason)"
)


async def erase(settings: Settings, job_id: str, *, actor: str, reason: str) -> int:
    """Erases what a job was given and what it made, and records who did it and why; returns the number of its events. Again
    on an erased job changes nothing. On PostgreSQL as the role that migrates.

    Raises `UnknownJob`, `Refused` for a job that has not ended or is held, `Unstorable` for events of a newer build."""
    log = database.make_log(settings)
    try:
        await log.open()
        if is_held(await log.hold_acts(job_id)):
            raise Refused("the job is held: `phaseline db unhold` lets it go")
        if (one := (await log.archived([job_id])).get(job_id)) is not None:
            erased = await erase_archived(settings, log, one, By(actor, None, reason))
        else:
            erased = await _erase_there(settings, log, job_id, actor=actor, reason=reason)
        if not settings.database_url:
            await asyncio.to_thread(_empty_wal, settings)
    except DBAPIError as refusal:
        raise PhaselineError(f"the database refused it: {str(refusal.orig).partition(chr(10))[0]}") from refusal
    else:
        return erased
    finally:
        await log.close()


async def alike(settings: Settings, job_id: str) -> list[str]:
    """Jobs this one was rerun from, and those that were rerun from it, however often: they may hold the same payload. Of those
    whose erasure is recorded, or that retention discarded, none is told; of those in the archive only what others lead to."""
    async with database.opened(settings) as log:
        found: dict[str, JobRow] = {}
        ahead = [job_id]
        while ahead and len(found) < ALIKE_MAX:
            row = await log.job(ahead.pop())
            if row is None or row.job.id in found:
                continue
            found[row.job.id] = row
            ahead += [row.rerun_of] if row.rerun_of else []
            ahead += await log.job_ids(JobQuery(row.job.tenant, rerun_of=row.job.id, limit=ALIKE_MAX))
        return sorted([one for one in found if one != job_id and not [x async for x in log.erasures(one)]])


async def _erase_there(settings: Settings, log: database.OpenLog, job_id: str, *, actor: str, reason: str) -> int:
    row = await log.job(job_id)
    if row is None:
        raise UnknownJob
    if not row.job.is_final:
        raise Refused(f"only a job that has ended can be erased; it is {row.job.status}")
    events = await database.whole_stream(log, job_id)
    texts = [redacted(recorded) for recorded in events]
    place, tenant = await log.act_place(), row.job.tenant
    told = recorded_act(*place, tenant, By(actor, None, reason).did("payload_erased", job_id, events=len(events)))
    await database.on_connection(
        settings, lambda connection: _erase(connection, events, texts, told, actor=actor, reason=reason)
    )
    await database.rewrite(log, job_id)
    return len(events)


def _empty_wal(settings: Settings) -> None:
    """SQLite's write-ahead log has pages as they were before, until it is written over: from here on it has none."""
    with contextlib.closing(sqlite3.connect(database.sqlite_path(settings), WAL_S, isolation_level=None)) as connection:
        try:
            [busy, *_] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError:
            busy = True
    if busy:
        raise PhaselineError("erased, but others keep the old pages in SQLite's write-ahead log: run this again")


def _erase(
    connection: Connection,
    events: Sequence[Recorded],
    texts: Sequence[str],
    told: Recorded,
    *,
    actor: str,
    reason: str,
) -> None:
    """One transaction, the act that tells of it included, unless it was told before."""
    job_id, seqs = events[0].job_id, [recorded.seq for recorded in events]
    if connection.dialect.name == "postgresql":
        with connection.begin():
            anew = not is_erased(connection, job_id, seqs[-1])
            said = {"job": job_id, "seqs": seqs, "texts": list(texts), "actor": actor, "reason": reason}
            connection.execute(_ERASE, said)
            if anew:
                tell(connection, told)
        return
    e, erasures = t.events, t.erasures
    record = {"job_id": job_id, "through_seq": seqs[-1], "at": Clock().now_ms(), "actor": actor, "reason": reason}
    if not is_erased(connection, job_id, seqs[-1]):
        connection.execute(insert(erasures).values(**record))
        tell(connection, told)
    for seq, kept in zip(seqs, texts, strict=True):
        changed = update(e).where(e.c.job_id == job_id, e.c.seq == seq, e.c.data != kept)
        connection.execute(changed.values(data=kept, size=len(kept)))
    connection.execute(delete(t.artifacts).where(t.artifacts.c.job_id == job_id))
    connection.commit()

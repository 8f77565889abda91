"""`phaseline db erase` of an archived job: its object is written anew without the payload, and the old one removed.

First the new object is there, then one transaction records the erasure and names it for every job that lay in the old one,
then the old one goes. The new manifest says what it replaces, so that an erasure that died in between is ended by the next.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, insert, select, update

from events import crash_points
from events import tables as t
from events.acts import By, recorded_act
from events.archive import Archive, is_ours, manifest_of, put_object
from events.archive_member import MemberWriter, unpack
from events.archive_store import ArchiveBroken, ArchiveStore
from events.clock import Clock
from events.erasure import redacted
from events.errors import PhaselineError, UnknownJob
from events.record import Recorded
from events.retention import Archived, Due
from events.seal_log import Stored
from phaseline import archives, database
from phaseline.records import is_erased, tell
from phaseline.settings import Settings


class Quicker(PhaselineError):
    """Another erasure in the same object was quicker. Run this one again."""


async def erase_archived(settings: Settings, log: database.OpenLog, one: Archived, by: By) -> int:
    """Returns the number of the job's events. Of a discarded job only what a partition still holds can go.

    Raises `ArchiveUnavailable`, `UnknownJob` when nothing is left of it, `PhaselineError` without the archive it lies in,
    `Quicker` when another erasure in the same object was."""
    if one.place is None:
        events = [stored async for stored in _left(log, one.job_id)]
        if not events:
            raise UnknownJob
        await _record(settings, log, one, [], events, by)
        return len(events)
    store = archives.make_store(settings)
    if store is None:
        raise PhaselineError("the job is archived: PHASELINE_ARCHIVE says where")
    await _remove_replaced(store, log, one.place, one.place)
    events = [stored async for stored in Archive(store).stored(one)]
    if len(events) != one.last_seq:
        raise ArchiveBroken(f"the archive has {len(events)} of {one.last_seq} events of the job")
    if any(stored.data != redacted(stored.recorded()) for stored in events):
        with tempfile.TemporaryDirectory(prefix="phaseline-erase-") as folder:
            moved = await _written_anew(store, log, Path(folder), one, events)
        crash_points.reached("erasure.written")
        try:
            await _record(settings, log, one, moved, events, by)
        except Quicker:  # no job lies in what was just written, and others may have been erased since
            await _remove(store, log, str(moved[0].place))
            raise
        crash_points.reached("erasure.committed")
        await _remove_replaced(store, log, str(moved[0].place), one.place)
    return len(events)


async def _left(log: database.OpenLog, job_id: str) -> AsyncIterator[Stored]:
    """What a partition still holds of a discarded job."""
    seq = 0
    while page := await log.read(job_id, seq):
        envelopes = {one.seq: one for one in await log.envelopes(job_id, seq, page[-1].seq + 1)}
        for recorded in page:
            yield Stored(envelopes[recorded.seq], len(recorded.data), recorded.data)
        seq = page[-1].seq


async def _record(
    settings: Settings,
    log: database.OpenLog,
    one: Archived,
    moved: Sequence[Archived],
    events: Sequence[Stored],
    by: By,
) -> None:
    place = await log.act_place()
    told = recorded_act(*place, one.tenant, by.did("payload_erased", one.job_id, events=len(events)))
    pairs = [(stored.envelope.seq, redacted(stored.recorded())) for stored in events]
    await database.on_connection(settings, lambda connection: _commit(connection, one, moved, pairs, told, by))


async def _written_anew(
    store: ArchiveStore,
    log: database.OpenLog,
    folder: Path,
    one: Archived,
    events: Sequence[Stored],
) -> list[Archived]:
    """The object again, with this job's payload left out; where each job lies then."""
    old, new = folder / "old", folder / "object"
    place = str(one.place)
    with old.open("w+b") as source, new.open("w+b") as target:
        await store.fetch(place, 0, None, source)
        lying: list[tuple[Archived, int, int]] = []
        for other in await log.archived_in(place):
            if other.job_id == one.job_id:
                lying.append((other, *await asyncio.to_thread(_redact, target, other, events)))
            else:
                start = target.tell()
                await asyncio.to_thread(_copy, source, target, other)
                lying.append((other, start, other.length))
    manifest = await _manifest(store, place)
    said = {job["job_id"]: job for job in manifest["jobs"]}
    replaces = [place, *manifest.get("replaces", ())]
    jobs = [{**said[other.job_id], "start": start, "length": length} for other, start, length in lying]
    name = await put_object(store, log.epoch, new, jobs, replaces=replaces)
    return [
        Archived(
            other.job_id, other.tenant, other.engine, other.status, other.last_seq, other.finished_at, other.at,
            name, start, length,
        )
        for other, start, length in lying
    ]  # fmt: skip


def _redact(target: IO[bytes], one: Archived, events: Sequence[Stored]) -> tuple[int, int]:
    due = Due(one.job_id, one.tenant, one.engine, one.status, one.last_seq, one.finished_at, erased=True)
    member = MemberWriter(target, due, len(events))
    kept = [(stored.envelope, redacted(stored.recorded())) for stored in events]
    member.events([Stored(envelope, len(data), data) for envelope, data in kept])
    return member.start, member.close()


def _copy(source: IO[bytes], target: IO[bytes], one: Archived) -> None:
    source.seek(one.start)
    with tempfile.TemporaryFile() as member:
        member.write(source.read(one.length))
        member.seek(0)
        unpack(member, one.last_seq)  # a member that is broken is not carried over as if it were whole
        member.seek(0)
        shutil.copyfileobj(member, target)


async def _manifest(store: ArchiveStore, place: str) -> dict[str, Any]:
    with tempfile.TemporaryFile() as file:
        await store.fetch(manifest_of(place), 0, None, file)
        file.seek(0)
        found: dict[str, Any] = json.loads(file.read())
        return found


async def _remove_replaced(store: ArchiveStore, log: database.OpenLog, place: str, before: str) -> None:
    """What an erasure that died left: the objects this one replaces, in which no job lies. A manifest is what anybody wrote
    who can write to the archive: only objects of the lineages the database names, by this place and the one before, go."""
    try:
        replaced = (await _manifest(store, place)).get("replaces", ())
    except (ArchiveBroken, ValueError):
        return
    lineages = {named.partition("/")[0] for named in (place, before)}
    for one in replaced:
        if isinstance(one, str) and any(is_ours(one, lineage) for lineage in lineages):
            await _remove(store, log, one)


async def _remove(store: ArchiveStore, log: database.OpenLog, place: str) -> None:
    if not await log.archived_in(place):
        await store.delete(manifest_of(place))
        await store.delete(place)


def _commit(
    connection: Connection,
    one: Archived,
    moved: Sequence[Archived],
    pairs: Sequence[tuple[int, str]],
    told: Recorded,
    by: By,
) -> None:
    """Records the erasure and names the new object, in one transaction. On PostgreSQL as the role that migrates."""
    if not connection.in_transaction():
        connection.begin()
    if connection.dialect.name == "postgresql":  # a hold waits for this, or was recorded before and is seen
        connection.execute(select(t.archived.c.job_id).where(t.archived.c.job_id == one.job_id).with_for_update())
    if not is_erased(connection, one.job_id, one.last_seq):
        said = {"at": Clock().now_ms(), "actor": by.actor, "reason": by.reason or ""}
        connection.execute(insert(t.erasures).values(job_id=one.job_id, through_seq=one.last_seq, **said))
        tell(connection, told)
    a, e = t.archived, t.events
    for other in moved:
        there = update(a).where(a.c.job_id == other.job_id, a.c.place == one.place)
        found = connection.execute(there.values(place=other.place, start=other.start, length=other.length))
        if found.rowcount != 1:
            raise Quicker
    for seq, kept in pairs:  # what a partition still holds
        changed = update(e).where(e.c.job_id == one.job_id, e.c.seq == seq, e.c.data != kept)
        connection.execute(changed.values(data=kept, size=len(kept)))
    connection.commit()

"""`phaseline db erase` of an archived job: its object is written anew without the payload, and the old one removed.

First the new object is there, then one transaction records the erasure and names it for every job that lay in the old one,
then the old one goes. The new manifest says what it replaces, so that an erasure that died in between is ended by the next.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, insert, text, update

from events import crash_points
from events import tables as t
from events.acts import By, recorded_act
from events.archive import ArchiveBroken, ArchiveStore, MemberWriter, manifest_of, put_object, unpack
from events.clock import Clock
from events.erasure import redacted
from events.errors import PhaselineError
from events.record import Recorded
from events.retention import Archived, Due
from events.seal_log import Stored
from phaseline import archives, database
from phaseline.records import is_erased, tell
from phaseline.settings import Settings


class Quicker(PhaselineError):
    """Another erasure in the same object was quicker. Run this one again."""


async def erase_archived(settings: Settings, log: database.OpenLog, one: Archived, by: By) -> int:
    """Returns the number of the job's events. Raises `ArchiveUnavailable`, and `Quicker` when another erasure of
    the same object was quicker."""
    store = archives.make_store(settings)
    assert store is not None
    assert one.place is not None  # else the job would be unknown
    events: list[Stored] = [stored async for stored in log.stored(one.job_id)]
    texts = [redacted(stored.recorded()) for stored in events]
    if all(stored.data == kept for stored, kept in zip(events, texts, strict=True)):
        await _remove_replaced(store, one.place)
        return len(events)
    with tempfile.TemporaryDirectory(prefix="phaseline-erase-") as folder:
        moved = await _written_anew(store, log, Path(folder), one, events, texts)
    crash_points.reached("erasure.written")
    place = await log.act_place()
    told = recorded_act(*place, one.tenant, by.did("payload_erased", one.job_id, events=len(events)))
    pairs = [(stored.envelope.seq, kept) for stored, kept in zip(events, texts, strict=True)]
    try:
        await database.on_connection(settings, lambda connection: _commit(connection, one, moved, pairs, told, by))
    except Quicker:  # no job lies in what was just written, and others may have been erased since
        await _remove(store, str(moved[0].place))
        raise
    crash_points.reached("erasure.committed")
    await _remove_replaced(store, str(moved[0].place))
    return len(events)


async def _written_anew(
    store: ArchiveStore,
    log: database.OpenLog,
    folder: Path,
    one: Archived,
    events: Sequence[Stored],
    texts: Sequence[str],
) -> list[Archived]:
    """The object again, with this job's payload left out; where each job lies then."""
    old, new = folder / "old", folder / "object"
    place = str(one.place)
    with old.open("w+b") as source, new.open("w+b") as target:
        await store.fetch(place, 0, None, source)
        lying: list[tuple[Archived, int, int]] = []
        for other in await log.archived_in(place):
            if other.job_id == one.job_id:
                lying.append((other, *await asyncio.to_thread(_redact, target, other, events, texts)))
            else:
                start = target.tell()
                await asyncio.to_thread(_copy, source, target, other)
                lying.append((other, start, other.length))
    manifest = await _manifest(store, place)
    said = {job["job_id"]: job for job in manifest["jobs"]}
    jobs = [{**said[other.job_id], "start": start, "length": length} for other, start, length in lying]
    name = await put_object(store, new, jobs, replaces=place)
    return [
        Archived(
            other.job_id, other.tenant, other.engine, other.status, other.last_seq, other.finished_at, other.at,
            name, start, length,
        )
        for other, start, length in lying
    ]  # fmt: skip


def _redact(target: IO[bytes], one: Archived, events: Sequence[Stored], texts: Sequence[str]) -> tuple[int, int]:
    due = Due(one.job_id, one.tenant, one.engine, one.status, one.last_seq, one.finished_at)
    member = MemberWriter(target, due, len(events))
    member.events([Stored(stored.envelope, len(kept), kept) for stored, kept in zip(events, texts, strict=True)])
    return member.start, member.close()


def _copy(source: IO[bytes], target: IO[bytes], one: Archived) -> None:
    source.seek(one.start)
    with tempfile.TemporaryFile() as member:
        member.write(source.read(one.length))
        member.seek(0)
        unpack(member)  # a member that is broken is not carried over as if it were whole
        member.seek(0)
        shutil.copyfileobj(member, target)


async def _manifest(store: ArchiveStore, place: str) -> dict[str, Any]:
    with tempfile.TemporaryFile() as file:
        await store.fetch(manifest_of(place), 0, None, file)
        file.seek(0)
        found: dict[str, Any] = json.loads(file.read())
        return found


async def _remove_replaced(store: ArchiveStore, place: str) -> None:
    try:
        replaced = (await _manifest(store, place)).get("replaces")
    except (ArchiveBroken, ValueError):
        return
    if replaced:
        await _remove(store, replaced)


async def _remove(store: ArchiveStore, place: str) -> None:
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
    if connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA secure_delete = ON"))  # what is freed is overwritten
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

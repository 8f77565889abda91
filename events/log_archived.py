"""A log whose archived jobs open as if they had never gone: what the database lacks is read from the archive.

Mixed in before an adapter, and only where there is an archive; what the database has costs nothing more.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TypeVar

from events.archive import Archive
from events.archive_member import Unpacked
from events.archive_store import ArchiveBroken
from events.batch import job_row
from events.catalog import Submitted
from events.job import fold
from events.log import PAGE_BYTES_MAX, PAGE_EVENTS_MAX, Head, JobRow
from events.log_seals import SqlSealLog
from events.record import Line, Recorded
from events.retention import Archived
from events.seal_log import Ending, Stored

_log = logging.getLogger(__name__)
_T = TypeVar("_T", Ending, Stored)
_R = TypeVar("_R")


class WithArchive(SqlSealLog):
    """See `events/log.py` for the promises; a job that was discarded is unknown. Reads of archived jobs also raise
    `ArchiveUnavailable`, a `LogUnavailable`."""

    archive: Archive

    async def head(self, job_id: str, tenant: str | None = None) -> Head | None:
        found = await super().head(job_id, tenant)
        if found is not None:
            return found
        one = await self._gone(job_id, tenant)
        return None if one is None else _head(one)

    async def heads(self, job_ids: Sequence[str]) -> dict[str, Head]:
        found = await super().heads(job_ids)
        if len(found) < len(set(job_ids)):
            gone = await self.archived([job_id for job_id in job_ids if job_id not in found])
            found |= {job_id: _head(one) for job_id, one in gone.items() if one.place is not None}
        return found

    async def job(self, job_id: str, tenant: str | None = None) -> JobRow | None:
        found = await super().job(job_id, tenant)
        if found is not None:
            return found
        one = await self._gone(job_id, tenant)
        return None if one is None else await self._row(one)

    async def read(
        self, job_id: str, after: int, *, limit: int = PAGE_EVENTS_MAX, bytes_max: int = PAGE_BYTES_MAX
    ) -> list[Recorded]:
        page = await super().read(job_id, after, limit=limit, bytes_max=bytes_max)
        if page or (one := await self._gone(job_id)) is None or after >= one.last_seq:
            return page
        return await self._ask(one, lambda unpacked: unpacked.page(after, limit, bytes_max))

    async def lines(self, job_id: str, after: int) -> list[Line]:
        page = await super().lines(job_id, after)
        return page or [(row.seq, row.type, row.line()) for row in await self.read(job_id, after)]

    async def read_back(self, job_id: str, before: int, limit: int) -> list[Recorded]:
        page = await super().read_back(job_id, before, limit)
        # On SQLite the events of a job that went are deleted from its end: then the database has a beginning.
        if (page and page[0].seq == before - 1) or (one := await self._gone(job_id)) is None:
            return page
        return await self._ask(one, lambda unpacked: unpacked.back(before, limit))

    async def checkpoints(self, job_id: str) -> list[Recorded]:
        one = await self._gone(job_id)
        if one is None:
            return await super().checkpoints(job_id)
        return await self._ask(one, lambda unpacked: unpacked.checkpoints())

    async def artifact(self, job_id: str, sha256: str) -> bytes | None:
        body = await super().artifact(job_id, sha256)
        if body is not None or (one := await self._gone(job_id)) is None:
            return body
        return await self._ask(one, lambda unpacked: unpacked.value(sha256))

    async def artifact_size(self, job_id: str, sha256: str) -> int | None:
        size = await super().artifact_size(job_id, sha256)
        if size is not None or (one := await self._gone(job_id)) is None:
            return size
        return await self._ask(one, lambda unpacked: unpacked.value_size(sha256))

    async def endings(self, job_id: str | None = None) -> AsyncIterator[Ending]:
        async for one in _merged(super().endings(job_id), self._archived_endings(job_id)):
            yield one

    async def stored(self, job_id: str | None = None) -> AsyncIterator[Stored]:
        async for one in _merged(super().stored(job_id), self._archived_stored(job_id)):
            yield one

    async def _archived_endings(self, job_id: str | None) -> AsyncIterator[Ending]:
        async for one in self.all_archived(job_id):
            if one.place is not None:
                yield Ending(one.job_id, one.last_seq, one.status)

    async def _archived_stored(self, job_id: str | None) -> AsyncIterator[Stored]:
        async for one in self.all_archived(job_id):
            if one.place is not None:
                async for stored in self._stored_where_it_lies(one):
                    yield stored

    async def _stored_where_it_lies(self, one: Archived) -> AsyncIterator[Stored]:
        """What cannot be read is what an audit finds missing."""
        place, seq = one, 0
        while True:
            try:
                async for stored in self.archive.stored(place):
                    if stored.envelope.seq > seq:
                        seq = stored.envelope.seq
                        yield stored
            except ArchiveBroken as broken:
                moved = (await self.archived([one.job_id])).get(one.job_id, place)
                if moved != place:  # an erasure wrote its object anew
                    place = moved
                    continue
                _log.warning("%s", broken)
            return

    async def _gone(self, job_id: str, tenant: str | None = None) -> Archived | None:
        one = (await self.archived([job_id], tenant)).get(job_id)
        return one if one is not None and one.place is not None else None

    async def _ask(self, one: Archived, question: Callable[[Unpacked], _R]) -> _R:
        """Of an object that was written anew since its place was read, once more."""
        try:
            return await self.archive.ask(one, question)
        except ArchiveBroken:
            moved = (await self.archived([one.job_id])).get(one.job_id, one)
            if moved == one:
                raise
            return await self.archive.ask(moved, question)

    async def _row(self, one: Archived) -> JobRow:
        job, submitted = None, None
        while job is None or job.last_seq < one.last_seq:
            page = await self._ask(one, partial(_page, job.last_seq if job else 0))
            if not page:
                raise ArchiveBroken(f"archived job {one.job_id} is cut off")
            submitted = submitted or page[0].event()
            job = fold(page, job)
        assert isinstance(submitted, Submitted)
        return job_row(job, submitted)


def _head(one: Archived) -> Head:
    return Head(one.last_seq, one.status, one.tenant)


async def _merged(ours: AsyncIterator[_T], theirs: AsyncIterator[_T]) -> AsyncIterator[_T]:
    """Two streams in order as one. A job that went to the archive meanwhile may be in both: what was had is not had again."""
    one, other = await anext(ours, None), await anext(theirs, None)
    last: tuple[str, int] = ("", -1)
    while one is not None or other is not None:
        if other is None or (one is not None and _key(one) < _key(other)):
            assert one is not None
            following, one = one, await anext(ours, None)
        else:
            following, other = other, await anext(theirs, None)
        if _key(following) > last:
            last = _key(following)
            yield following


def _key(one: Ending | Stored) -> tuple[str, int]:
    return one.job_id, one.envelope.seq if isinstance(one, Stored) else 0


def _page(after: int, unpacked: Unpacked) -> list[Recorded]:
    return unpacked.page(after, PAGE_EVENTS_MAX, PAGE_BYTES_MAX)

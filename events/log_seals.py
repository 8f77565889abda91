"""What both SQL logs do for the audit: see `events/seal_log.py`. An adapter adds how it reads the feed."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Text,
    and_,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from events import tables as t
from events.catalog import ACT
from events.errors import Unstorable
from events.jobs_sql import JOBS_PAGE
from events.log import FEED_BYTES_MAX
from events.log_sql import EVENTS_PAGE, READ_S, SqlLog
from events.retention_sql import in_database
from events.seal import Envelope, Range, Seal
from events.seal_log import Ending, Erasure, Stored

ENVELOPE = ("job_id", "seq", "type", "version", "attempt", "actor", "tenant", "at", "command_id", "digest")
SEALS_PAGE = 50
RANGES_PAGE = 500
_SEAL = tuple(t.seals.c[name] for name in Seal.__slots__)
_ERASURE = tuple(t.erasures.c[name] for name in Erasure.__slots__)
_RANGE = tuple(t.sealed.c[name] for name in Range.__slots__)


class SqlSealLog(SqlLog):
    """Seals and what an audit reads, beside the log."""

    def _place_sql(self) -> ColumnElement[str]:
        """An event's cursor in the feed, as an SQL expression over `events`."""
        raise NotImplementedError

    async def last_seal(self) -> Seal | None:
        rows = await self._rows(select(*_SEAL).order_by(t.seals.c.no.desc()).limit(1))
        return _seal(rows[0]) if rows else None

    async def seal(self, no: int) -> Seal | None:
        rows = await self._rows(select(*_SEAL).where(t.seals.c.no == no))
        return _seal(rows[0]) if rows else None

    async def envelopes(self, job_id: str, after: int, before: int) -> list[Envelope]:
        e = t.events.c
        query = select(*self._envelope()).where(e.job_id == job_id, e.seq > after, e.seq < before).order_by(e.seq)
        return [to_envelope(row) for row in await self._rows(query)]

    async def heads_sealed(self, job_ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        s = t.sealed.c
        last = select(s.job_id, func.max(s.first_seq).label("first_seq")).where(s.job_id.in_(list(job_ids)))
        newest = last.group_by(s.job_id).subquery()
        same = and_(newest.c.job_id == s.job_id, newest.c.first_seq == s.first_seq)
        rows = await self._rows(select(s.job_id, s.last_seq, s.head).join(newest, same))
        return {str(row.job_id): (row.last_seq, row.head) for row in rows}

    async def put_seal(self, seal: Seal, ranges: Sequence[Range]) -> bool:
        try:
            async with self._writing(READ_S) as connection:
                await connection.execute(insert(t.seals), [_columns(seal)])
                if ranges:
                    await self._put_ranges(connection, ranges)
        except Unstorable:  # its number is taken
            if await self.seal(seal.no) is None:
                raise
            return False
        return True

    async def _put_ranges(self, connection: AsyncConnection, ranges: Sequence[Range]) -> None:
        await connection.execute(insert(t.sealed), [_columns(one) for one in ranges])

    async def newest_named(self) -> int:
        return int((await self._rows(select(func.coalesce(func.max(t.sealed.c.seal), 0))))[0][0])

    async def seals(self, after: int, through: int) -> AsyncIterator[tuple[Seal, list[Range]]]:
        async for seal in self.bare_seals(after, through):
            named = select(*_RANGE).where(t.sealed.c.seal == seal.no).order_by(t.sealed.c.job_id)
            yield seal, [_range(row) for row in await self._rows(named)]

    async def bare_seals(self, after: int, through: int) -> AsyncIterator[Seal]:
        s = t.seals.c
        query = select(*_SEAL).where(s.no <= through).order_by(s.no).limit(SEALS_PAGE)
        while rows := [_seal(row) for row in await self._rows(query.where(s.no > after))]:
            for seal in rows:
                yield seal
            after = rows[-1].no

    async def ranges(self, through: int, job_id: str | None = None) -> AsyncIterator[Range]:
        s = t.sealed.c
        query = select(*_RANGE).where(s.seal <= through).order_by(s.job_id, s.first_seq).limit(RANGES_PAGE)
        query = query if job_id is None else query.where(s.job_id == job_id)
        page = query
        while rows := [_range(row) for row in await self._rows(page)]:
            for row in rows:
                yield row
            page = query.where(tuple_(s.job_id, s.first_seq) > _place(rows[-1].job_id, rows[-1].first_seq))

    async def endings(self, job_id: str | None = None) -> AsyncIterator[Ending]:
        after: str | None = None
        while rows := [_ending(row) for row in await self._rows(_endings(job_id, after))]:
            for row in rows:
                yield row
            after = rows[-1].job_id

    async def erasures(self, job_id: str | None = None) -> AsyncIterator[Erasure]:
        x = t.erasures.c
        query = select(*_ERASURE).order_by(x.job_id, x.through_seq).limit(JOBS_PAGE)
        query = query if job_id is None else query.where(x.job_id == job_id)
        page = query
        while rows := [_erasure(row) for row in await self._rows(page)]:
            for row in rows:
                yield row
            page = query.where(tuple_(x.job_id, x.through_seq) > _place(rows[-1].job_id, rows[-1].through_seq))

    async def stored(self, job_id: str | None = None) -> AsyncIterator[Stored]:
        after: tuple[str, int] | None = None
        while rows := await self._rows(self._stored_after(after, job_id)):
            for row in rows:
                yield Stored(to_envelope(row[:-2]), row.size, row.data)
            after = str(rows[-1].job_id), rows[-1].seq

    def _envelope(self) -> tuple[ColumnElement[Any], ...]:
        return (*(t.events.c[name] for name in ENVELOPE), self._place_sql().label("place"))

    def _stored_after(self, after: tuple[str, int] | None, job_id: str | None) -> Select[Any]:
        """The next page: the keys first, so that bodies are read only of what fits."""
        e = t.events.c
        length = func.length(e.data)  # what `size` says may be wrong, which is to be found
        keys = select(e.job_id, e.seq, length.label("size")).where(in_database(e.job_id))
        keys = keys.order_by(e.job_id, e.seq).limit(EVENTS_PAGE)
        if job_id is not None:
            keys = keys.where(e.job_id == job_id)
        if after is not None:
            keys = keys.where(tuple_(e.job_id, e.seq) > _place(*after))
        page = keys.subquery()
        order = (page.c.job_id, page.c.seq)
        total, nth = func.sum(page.c.size).over(order_by=order), func.row_number().over(order_by=order)
        sized = select(*order, total.label("total"), nth.label("nth")).subquery()
        fits = or_(sized.c.total <= FEED_BYTES_MAX, sized.c.nth == 1)
        found = select(*self._envelope(), e.size, e.data)
        joined = found.join(sized, and_(sized.c.job_id == e.job_id, sized.c.seq == e.seq))
        return joined.where(fits).order_by(e.job_id, e.seq)


def _endings(job_id: str | None, after: str | None) -> Select[Any]:
    """A page of jobs and of acts, each along its own index."""
    parts = []
    for key, *rest in (
        (t.jobs.c.id, t.jobs.c.last_seq, t.jobs.c.status),
        (t.acts.c.job_id, literal(1, BigInteger).label("last_seq"), literal(ACT, Text).label("status")),
    ):
        part = select(key.label("id"), *rest).order_by(key).limit(JOBS_PAGE)
        part = part if job_id is None else part.where(key == job_id)
        parts.append((part if after is None else part.where(key > after)).subquery().select())
    page = union_all(*parts).subquery()
    return select(page).order_by(page.c.id).limit(JOBS_PAGE)


def to_envelope(row: Sequence[Any]) -> Envelope:
    """A row of `ENVELOPE` and the place."""
    return Envelope(*row)


def _seal(row: Sequence[Any]) -> Seal:
    return Seal(*row)


def _range(row: Sequence[Any]) -> Range:
    return Range(*row)


def _erasure(row: Sequence[Any]) -> Erasure:
    return Erasure(*row)


def _ending(row: Sequence[Any]) -> Ending:
    return Ending(*row)


def _place(job_id: str, seq: int) -> Any:
    return tuple_(literal(job_id, t.Id), literal(seq, BigInteger))


def _columns(row: Seal | Range) -> dict[str, Any]:
    return {name: getattr(row, name) for name in type(row).__slots__}

"""What `phaseline audit verify` and the page of the audit do: reads seals and events and holds them against each other (`events/seal_check.py`).

Three streams in id order, merged: memory holds one job's wrong events, not the log. The log may be written meanwhile:
only seals that were there at the start count, and their events were committed before them.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from events.acts import Acts
from events.acts_check import ActsTold, ArchivedCount
from events.catalog import ACT
from events.keys import ApiKey
from events.retention import Archived
from events.seal import Range, Seal
from events.seal_check import ChainCheck, Finding, JobCheck
from events.seal_log import Ending, Erasure, SealLog, Stored
from events.values import decode

FINDINGS_MAX = 1000  # kept of one run
_ENDED = {"complete": "completed", "error": "failed", "cancelled": "cancelled"}
PROGRESS_EVENTS = 10_000  # between two calls of `progress`
_T = TypeVar("_T", bound=Range | Ending | Stored | Erasure | Archived)


class AuditedLog(SealLog, Acts, Protocol):
    """All that an audit reads."""


@dataclass(slots=True)
class Report:
    """What an audit saw. `oldest_unsealed_ms` is the age of the oldest event that no seal covers yet."""

    jobs: int = 0
    acts: int = 0  # administrative ones
    events: int = 0
    seals: int = 0
    keys: int = 0  # API keys, held against acts
    unsealed: int = 0
    erased: int = 0  # events whose payload was erased, as recorded
    untold: int = 0  # jobs with a record of an erasure that no act tells of: of before there were acts, or forged
    archived: int = 0  # jobs read from the archive
    discarded: int = 0  # jobs retention discarded: only their chains are left
    unread: int = 0  # jobs in an archive nobody named: only their chains were checked
    oldest_unsealed_ms: int | None = None
    anchors: int | None = None  # None: none were given
    anchored_seal: int | None = None  # the newest seal an anchor that holds has signed
    findings: list[Finding] = field(default_factory=list)
    more: int = 0  # findings beyond those kept

    def add(self, finding: Finding) -> None:
        """Keeps a finding, once."""
        if finding in self.findings:
            return
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)
        else:
            self.more += 1


def event_line(stored: Stored) -> dict[str, Any]:
    """An event as an export has it: the columns its leaf covers, the leaf, and its exact data as text."""
    return {**_hex(asdict(stored.envelope)), "leaf": stored.envelope.leaf.hex(), "data": stored.data}


def seal_line(one: Range | Seal) -> dict[str, Any]:
    """A range or a seal as an export has it."""
    return _hex(asdict(one))


def _hex(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in columns.items()}


async def verify(
    log: SealLog, *, job_id: str | None = None, progress: Callable[[Report], None] | None = None
) -> Report:
    """Audits the whole log, or one job: then its own chain only. `log` is open. Raises `LogUnavailable`."""
    return await _Audit(log, job_id, progress).run()


class _Audit:
    def __init__(self, log: SealLog, job_id: str | None, progress: Callable[[Report], None] | None) -> None:
        self._log = log
        self._job_id = job_id
        self._progress = progress or (lambda _: None)
        self.report = Report()
        self._oldest: int | None = None
        self._chain = ChainCheck()
        self._erased: set[str] = set()  # jobs, by the records that let data go, which are not sealed
        self._ends: dict[str, int] = {}  # of the former: when the last event was, ms
        self._discarded: set[str] = set()  # jobs retention discarded, by their records
        self._archived = ArchivedCount()
        self._told = ActsTold()  # the same by acts, which are

    async def run(self) -> Report:
        named = await self._log.newest_named()  # before the seals: what a seal is named by comes with it
        last = await self._log.last_seal()
        through = last.no if last else 0
        if named > through:
            gone = f"seal {named} is" if named == through + 1 else f"seals {through + 1} to {named} are"
            self.report.add(Finding("seal", f"{gone} gone from the end", seal=through + 1))
        self.report.seals = through
        if self._job_id is None:
            await self._hold_chain(through)
        await self._hold_jobs(last)
        if self._job_id is None:
            await self._hold_records()
        if self._oldest is not None:
            self.report.oldest_unsealed_ms = max(await self._log.now() - self._oldest, 0)
        return self.report

    async def _hold_chain(self, through: int) -> None:
        async for seal, ranges in self._log.seals(0, through):
            for finding in self._chain.take(seal, ranges):
                self.report.add(finding)
            if seal.no % 100 == 0:
                self._progress(self.report)

    async def _hold_records(self) -> None:
        """What no seal covers, against the acts, which were passed at another moment: where they differ, all are read again."""
        keys = await self._log.keys()
        if next(self._untold(keys), None) is not None:
            self._told = await self._acts()
        self.report.untold = len(self._erased - self._told.erased)
        self.report.keys = len(keys)
        found = list(self._untold(keys))
        if any(finding.key_id for finding in found):  # not those of keys that were changed while acts were read
            later = set(self._told.keys_unlike(await self._log.keys()))
            found = [finding for finding in found if finding.key_id is None or finding in later]
        for finding in found:
            self.report.add(finding)

    def _untold(self, keys: Sequence[ApiKey]) -> Iterator[Finding]:
        first = self._told.first
        for job_id in sorted(self._erased - self._told.erased):
            if first is not None and self._ends.get(job_id, 0) > first:
                yield Finding("changed", "a record says that it was erased, and no act tells of that", job_id, 1)
        for job_id in sorted(self._discarded - self._told.discarded):
            detail = "its events are gone, and no act tells that retention discarded it"
            yield Finding("missing", detail, job_id, 1)
        yield from self._told.more_archived(self._archived)
        yield from self._told.keys_unlike(keys)

    async def _acts(self) -> ActsTold:
        told = ActsTold()
        async for ending in self._log.endings():
            if ending.status == ACT:
                async for stored in self._log.stored(ending.job_id):
                    told.take(stored)
        return told

    async def _hold_jobs(self, last: Seal | None) -> None:
        ranges = await _Ahead.over(self._log.ranges(last.no if last else 0, self._job_id))
        endings = await _Ahead.over(self._log.endings(self._job_id))
        events = await _Ahead.over(self._log.stored(self._job_id))
        erasures = await _Ahead.over(self._log.erasures(self._job_id))
        archived = await _Ahead.over(self._log.all_archived(self._job_id))
        seen: set[str] = set()
        while job_id := min((key for key in (ranges.key, endings.key, events.key) if key is not None), default=None):
            erased_to = 0
            while erasures.item is not None and erasures.item.job_id <= job_id:
                erased_to = erasures.item.through_seq if erasures.key == job_id else erased_to
                self._erased.add(erasures.item.job_id)
                await erasures.on()
            check = JobCheck(job_id, last.cursor if last else "", self._chain.lost, erased_to)
            first, final = events.item, events.item
            while events.key == job_id and events.item is not None:
                while ranges.key == job_id and ranges.item is not None and check.sealed_to < events.item.envelope.seq:
                    check.cover(ranges.item)
                    await ranges.on()
                self._take(check, events.item)
                final = events.item
                await events.on()
            while ranges.key == job_id and ranges.item is not None:
                check.cover(ranges.item)
                await ranges.on()
            ending = await endings.of(job_id)
            gone = await archived.of(job_id)
            if gone is not None:
                self._archived.take(gone, read=check.seq > 0 or ending is not None)
            if gone is not None and check.seq == 0 and ending is None:
                self._taken_out(check, gone)
            else:
                await self._end(check, ending)
                if gone is not None and check.seq and first is not None and final is not None:
                    self._hold_place(gone, first, final)
            if job_id in self._chain.lost:
                seen.add(job_id)
        for job_id in self._chain.lost.keys() - seen:
            check = JobCheck(job_id, "", self._chain.lost)
            self._add(check, None)

    def _take(self, check: JobCheck, stored: Stored) -> None:
        check.take(stored)
        if stored.envelope.job_id in self._erased:
            self._ends[stored.envelope.job_id] = stored.envelope.at
        if check.is_act:
            self._told.take(stored)
        self.report.events += 1
        if self.report.events % PROGRESS_EVENTS == 0:
            self._progress(self.report)

    async def _end(self, check: JobCheck, ending: Ending | None) -> None:
        """Rows and events were read at different moments: where they differ, both are read again."""
        if ending is None or ending.last_seq != check.seq:
            ending = await anext(self._log.endings(check.job_id), None)
            if ending is not None and check.seq < ending.last_seq:
                async for stored in self._log.stored(check.job_id):
                    if stored.envelope.seq > check.seq:
                        self._take(check, stored)
                        ending = await anext(self._log.endings(check.job_id), None) or ending
        self._add(check, ending)

    def _hold_place(self, gone: Archived, first: Stored, final: Stored) -> None:
        """The record of where an archived job is, against its events, of which the seals tell."""
        self.report.archived += 1
        e = final.envelope
        said = (gone.tenant, gone.engine, gone.status, gone.last_seq, gone.finished_at)
        if first.job_id != gone.job_id or said != (e.tenant, _engine(first), _ENDED.get(e.type), e.seq, e.at):
            detail = "the record of where it lies in the archive is not that of its events"
            self.report.add(Finding("changed", detail, gone.job_id))

    def _taken_out(self, check: JobCheck, gone: Archived) -> None:
        for finding in check.taken_out(gone.last_seq):
            self.report.add(finding)
        self.report.jobs += 1
        self.report.discarded += gone.place is None
        if gone.place is None:
            self._discarded.add(gone.job_id)
        self.report.unread += gone.place is not None

    def _add(self, check: JobCheck, ending: Ending | None) -> None:
        for finding in check.end(ending):
            self.report.add(finding)
        if check.is_act:
            self.report.acts += 1
        else:
            self.report.jobs += 1
        self.report.unsealed += check.unsealed
        self.report.erased += check.erased
        if check.oldest_unsealed is not None:
            self._oldest = min(check.oldest_unsealed, self._oldest or check.oldest_unsealed)


def _engine(first: Stored) -> str | None:
    try:
        return str(decode(first.data)["engine"])
    except (ValueError, KeyError, TypeError):  # it was edited, which is told by its check
        return None


class _Ahead(Generic[_T]):
    """A stream and its next item; `key` is the job the item is of, None at the end."""

    def __init__(self, stream: AsyncIterator[_T]) -> None:
        self._stream = stream
        self.item: _T | None = None

    @classmethod
    async def over(cls, stream: AsyncIterator[_T]) -> "_Ahead[_T]":
        ahead = cls(stream)
        await ahead.on()
        return ahead

    async def on(self) -> None:
        self.item = await anext(self._stream, None)

    async def of(self, job_id: str) -> _T | None:
        """This job's last item; those of jobs before it are passed over."""
        found: _T | None = None
        while self.item is not None and self.item.job_id <= job_id:
            found = self.item if self.item.job_id == job_id else found
            await self.on()
        return found

    @property
    def key(self) -> str | None:
        return None if self.item is None else self.item.job_id

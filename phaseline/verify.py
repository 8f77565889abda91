"""Feeds a run to the checks of `events/checker.py`: the log, the RabbitMQ stream, and what clients recorded.

Everything streams: memory grows by some 200 bytes a job, and nine bytes an event when there is a copy to hold against.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from events.bus import Bus
from events.catalog import ACT
from events.checker import CopyCheck, RecordingCheck, RunCheck, StreamCheck, Violation, hold_act
from events.errors import BusUnavailable
from events.log import PAGE_EVENTS_MAX, JobRow, Log
from events.record import Recorded

COPY_WAIT_S = 30.0  # how long the leader may take to copy what the log holds by now
COPY_LOOK_S = 0.2
NONE: Mapping[str, Iterable[bytes | str]] = MappingProxyType({})
_FEED_PAGE = 500


@dataclass(frozen=True, slots=True)
class Counts:
    """How much was checked. `copied` is the number of messages in the RabbitMQ stream, None when none was asked for."""

    jobs: int = 0
    events: int = 0
    recordings: int = 0
    copied: int | None = None

    def __str__(self) -> str:
        copy = "no copy" if self.copied is None else "copy complete"
        return f"{self.jobs} jobs, {self.events} events, {self.recordings} recordings, {copy}"


async def verify(
    log: Log,
    bus: Bus | None = None,
    recordings: Mapping[str, Iterable[bytes | str]] = NONE,
    *,
    settled: bool = False,
    copy_wait_s: float = COPY_WAIT_S,
) -> Counts:
    """Checks everything there is. `log` and `bus` are open; with `bus` the copy must be complete within `copy_wait_s`;
    `recordings` are lines by name; `settled` says that nothing goes on any more, so that every job must have ended.
    Otherwise the run may go on meanwhile.

    Raises the first `Violation`, `LogUnavailable`, `BusUnavailable`.
    """
    copy = CopyCheck() if bus is not None and bus.keeps_copy else None
    jobs, events = await _Streams(log, copy, settled=settled).check()
    for name, lines in recordings.items():
        await _hold_recording(log, name, lines)
    if bus is not None and copy is not None:
        await _hold_copy(log, bus, copy, copy_wait_s)
    return Counts(jobs, events, len(recordings), copy.messages if copy else None)


# ---- streams ----------------------------------------------------------------------------------------------------


class _Streams:
    """All streams with their rows, both in id order."""

    def __init__(self, log: Log, copy: CopyCheck | None, *, settled: bool) -> None:
        self._log = log
        self._copy = copy
        self._settled = settled
        self._run = RunCheck()
        self._rows = log.all_jobs()
        self._row: JobRow | None = None
        self._jobs = 0
        self._events = 0

    async def check(self) -> tuple[int, int]:
        """Returns the number of jobs and of events."""
        self._row = await anext(self._rows, None)
        check: StreamCheck | None = None
        async for recorded in self._log.all_events():
            if recorded.type == ACT and (check is None or check.job_id != recorded.job_id):
                hold_act(recorded)
                self._count(recorded)
                continue
            if check is None or check.job_id != recorded.job_id:
                if check is not None:
                    await self._over(check)
                check = StreamCheck(recorded.job_id)
            self._take(check, recorded)
        if check is not None:
            await self._over(check)
        while self._row is not None:
            await self._eventless(self._row)
        return self._jobs, self._events

    def _take(self, check: StreamCheck, recorded: Recorded) -> None:
        check.take(recorded)
        if recorded.seq == 1:
            self._run.take(recorded)
        self._count(recorded)

    def _count(self, recorded: Recorded) -> None:
        if self._copy is not None:
            self._copy.logged(recorded)
        self._events += 1

    async def _over(self, check: StreamCheck) -> None:
        while self._row is not None and self._row.job.id < check.job_id:
            await self._eventless(self._row)
        row = None
        if self._row is not None and self._row.job.id == check.job_id:
            row, self._row = self._row, await anext(self._rows, None)
        await self._ended(check, row)

    async def _eventless(self, row: JobRow) -> None:
        self._row = await anext(self._rows, None)
        await self._ended(StreamCheck(row.job.id), None)

    async def _ended(self, check: StreamCheck, row: JobRow | None) -> None:
        """Row and events were read at different moments: the events are read on, up to a newer row."""
        if row is None or row.job.last_seq != check.seq:
            row = await self._log.job(check.job_id)
            while row is not None and check.seq < row.job.last_seq:
                page = await self._log.read(check.job_id, check.seq)
                for recorded in page:
                    self._take(check, recorded)
                if not page:
                    break
            if row is None and not await self._log.read(check.job_id, 0, limit=1):
                return  # removed meanwhile
        check.end(row, settled=self._settled)
        self._jobs += 1


# ---- recordings -------------------------------------------------------------------------------------------------


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a recording in a file, read as they are asked for. Raises `OSError`."""
    with path.open("rb") as file:
        # A client that was killed may have left half a line.
        yield from (line for line in file if line.endswith(b"\n"))


async def _hold_recording(log: Log, name: str, lines: Iterable[bytes | str]) -> None:
    check = RecordingCheck(name)
    pages = _Pages(log)
    for line in lines:
        events = check.take(line)
        for event in events if check.epoch in {None, log.epoch} else ():
            check.same(event, await pages.event(event["job_id"], event["seq"]))


class _Pages:
    """Single events of the log, read a page at a time: a client is sent them in order."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._job_id = ""
        self._page: list[Recorded] = []

    async def event(self, job_id: str, seq: int) -> Recorded | None:
        found = self._found(job_id, seq)
        if found is None:
            self._job_id = job_id
            self._page = await self._log.read(job_id, seq - 1, limit=PAGE_EVENTS_MAX)
            found = self._found(job_id, seq)
        return found

    def _found(self, job_id: str, seq: int) -> Recorded | None:
        at = seq - self._page[0].seq if self._page and job_id == self._job_id else -1
        return self._page[at] if 0 <= at < len(self._page) else None


# ---- the copy ---------------------------------------------------------------------------------------------------


async def _hold_copy(log: Log, bus: Bus, copy: CopyCheck, wait_s: float) -> None:
    """The leader copies once a sweep: what is missing now may be there in a moment, until the wait is over."""
    deadline = asyncio.get_running_loop().time() + wait_s
    while True:
        late = asyncio.get_running_loop().time() > deadline
        try:
            if late or await _copied_up(log):
                await _read(log, bus, copy)
                if (missing := next(copy.missing(), None)) is None:
                    return
                if late:
                    recorded = await log.read(missing[0], missing[1] - 1, limit=1)
                    raise Violation("I6", "the RabbitMQ stream lacks an event of the log", *recorded)
        except BusUnavailable:
            if late:
                raise
        await asyncio.sleep(COPY_LOOK_S)


async def _copied_up(log: Log) -> bool:
    """Whether the leader's cursor is at the end of the log."""
    return not (await log.feed(await log.cursor("copy") or "", 1)).events


async def _read(log: Log, bus: Bus, copy: CopyCheck) -> None:
    copy.begin()
    async for message in bus.read_copy():
        copy.copied(message)
    for (job_id, seq), message in copy.beyond.items():
        page = await log.read(job_id, seq - 1, limit=1)
        if not page and await log.archived([job_id]):
            continue  # retention took it out, and it was copied before
        copy.held_against(message, page[0] if page and page[0].seq == seq else None)
    if copy.first is not None and next(copy.missing(), None) is not None and await bus.copy_start():
        await _excuse_removed(log, copy, copy.first)


async def _excuse_removed(log: Log, copy: CopyCheck, first: tuple[str, int]) -> None:
    """RabbitMQ drops its oldest messages: what comes before the first one left, in the order of the feed, may be gone."""
    cursor = ""
    while (page := await log.feed(cursor, _FEED_PAGE)).events:
        for recorded in page.events:
            if (recorded.job_id, recorded.seq) == first:
                return
            copy.excuse(recorded.job_id, recorded.seq)
        cursor = page.cursor

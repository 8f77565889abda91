"""Port: what the log keeps for its audit. Held by each SQL log, tested in `tests/contract/test_seals.py`.

A seal, once put, is for ever. Its events had been committed before it, so whoever reads a seal and then events finds
every event it covers.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from events.keys import ApiKey
from events.record import Recorded
from events.retention import Archived
from events.seal import Envelope, Range, Seal

SEAL_EVENTS_MAX = 500


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as an audit reads it: the envelope, and the data beside what the columns say of it."""

    envelope: Envelope
    size: int
    data: str

    @property
    def job_id(self) -> str:
        """Whose it is."""
        return self.envelope.job_id

    def recorded(self) -> Recorded:
        """As readers of the log get it."""
        e = self.envelope
        columns = (e.job_id, e.seq, e.type, e.version, e.attempt, e.actor, e.tenant, e.at, e.command_id)
        return Recorded(*columns, self.data)


@dataclass(frozen=True, slots=True)
class Ending:
    """What a job's row says of its stream; an act's (`acts`) has the status `administered`."""

    job_id: str
    last_seq: int
    status: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """A job's payload was erased, up to this event. `at` in ms."""

    job_id: str
    through_seq: int
    at: int
    actor: str
    reason: str


class SealLog(Protocol):
    """Raises `LogUnavailable`, as `Log`."""

    async def now(self) -> int:
        """The database's time in ms."""

    async def last_seal(self) -> Seal | None:
        """The newest seal."""

    async def seal(self, no: int) -> Seal | None:
        """The seal of this number."""

    async def sealable(self, cursor: str, limit: int) -> tuple[list[Envelope], str]:
        """Events behind a cursor of the feed, in its order and as complete, without their data; and where to go on."""

    async def envelopes(self, job_id: str, after: int, before: int) -> list[Envelope]:
        """A job's events between two sequences, both excluded."""

    async def heads_sealed(self, job_ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        """Sequence and head each of these jobs is sealed up to; jobs without a seal are absent."""

    async def put_seal(self, seal: Seal, ranges: Sequence[Range]) -> bool:
        """Keeps a seal and its ranges; False when another process was first."""

    async def newest_named(self) -> int:
        """The highest seal any range names, 0 for none."""

    def seals(self, after: int, through: int) -> AsyncIterator[tuple[Seal, list[Range]]]:
        """The seals above `after` in order, each with the ranges that name it, in id order."""

    def bare_seals(self, after: int, through: int) -> AsyncIterator[Seal]:
        """As `seals`, without what names them."""

    def ranges(self, through: int, job_id: str | None = None) -> AsyncIterator[Range]:
        """Ranges of seals up to `through`, by job id and sequence."""

    def endings(self, job_id: str | None = None) -> AsyncIterator[Ending]:
        """What the rows of all jobs and acts say, in id order."""

    async def archived_of(self, tenant: str, before: str | None, limit: int) -> list[Archived]:
        """The jobs of a tenant retention took out, the newest first; `before` is the id of the last one of the page before."""

    def all_archived(self, job_id: str | None = None) -> AsyncIterator[Archived]:
        """Every job retention took out, in id order; or one. Where there is an archive, `stored` and `endings` have those
        that are not discarded."""

    def erasures(self, job_id: str | None = None) -> AsyncIterator[Erasure]:
        """What was erased, by job id and sequence."""

    async def keys(self) -> list[ApiKey]:
        """All API keys, oldest first."""

    def stored(self, job_id: str | None = None) -> AsyncIterator[Stored]:
        """Every event by job id and sequence, in bounded pages."""

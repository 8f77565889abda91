"""Holds stored events against their seals and names what is wrong. PURE; `events/audit.py` feeds it.

Ranges and events of a job are taken in order; what is wrong is judged at the job's end, when it can be told whether an
event was changed or is another one that was moved there.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from events.catalog import ACT, TERMINAL
from events.erasure import redacted
from events.errors import Unstorable
from events.log import at_or_behind
from events.seal import HASH_BYTES, START, Range, Seal, first_head, head_after, unpack_ranges
from events.seal_log import Ending, Stored

What = Literal["changed", "missing", "cut", "added", "moved", "seal", "anchor"]
JUDGED_MAX = 200  # wrong events of one job that are looked at more closely

Lost = Mapping[
    str, Sequence[tuple[int, int]]
]  # job -> first and last sequence of ranges that are gone or not to be trusted


@dataclass(frozen=True, slots=True)
class Finding:
    """Something is not as it was sealed. `seq` is the first event it is about; `seal` the seal it was found by; `key_id` the
    API key whose row differs from what acts tell."""

    what: What
    detail: str
    job_id: str | None = None
    seq: int | None = None
    seal: int | None = None
    key_id: str | None = None

    def __str__(self) -> str:
        where = f"job {self.job_id}" if self.job_id else f"seal {self.seal}" if self.seal else "the log"
        where = f"key {self.key_id}" if self.key_id else where
        at = f" event {self.seq}" if self.seq is not None else ""
        return f"{where}{at}: {self.what}: {self.detail}"


class ChainCheck:
    """The whole log's chain. `lost` is for the jobs' checks: their ranges that are gone."""

    def __init__(self) -> None:
        self.lost: dict[str, list[tuple[int, int]]] = {}
        self.last: Seal | None = None

    def take(self, seal: Seal, ranges: Sequence[Range]) -> Iterator[Finding]:
        """The next seal, and the ranges that name it."""
        before, self.last = self.last, seal
        expected = before.no + 1 if before else 1
        if seal.no != expected:
            gone = f"seal {expected} is" if seal.no == expected + 1 else f"seals {expected} to {seal.no - 1} are"
            yield Finding("seal", f"{gone} gone", seal=expected)
        elif seal.previous != (before.hash if before else START):
            yield Finding("seal", "it does not follow the seal before it", seal=seal.no)
        if seal.hash != seal.right_hash():
            yield Finding("seal", "it was edited: its hash is another", seal=seal.no)
        yield from self._hold(seal, ranges)

    def _hold(self, seal: Seal, ranges: Sequence[Range]) -> Iterator[Finding]:
        try:
            listed = {(job, first): (last, head) for job, first, last, head in unpack_ranges(seal.ranges)}
        except ValueError:
            yield Finding("seal", "what it covers is unreadable", seal=seal.no)
            return
        for one in ranges:
            covered = listed.pop((one.job_id, one.first_seq), None)
            if covered is None:
                detail = f"a record seals events {one.first_seq} to {one.last_seq}, which seal {seal.no} does not cover"
                yield Finding("seal", detail, one.job_id, one.first_seq, seal.no)
            elif covered != (one.last_seq, one.head):
                detail = f"the record that seals events {one.first_seq} to {covered[0]} was edited"
                yield Finding("seal", detail, one.job_id, one.first_seq, seal.no)
        for (job_id, first), (last, _) in listed.items():
            self.lost.setdefault(job_id, []).append((first, last))
            yield Finding("seal", f"the record that sealed events {first} to {last} is gone", job_id, first, seal.no)


class JobCheck:
    """One job: its ranges by `cover`, its events by `take`, each in order; then `end`. `cursor` is the last seal's."""

    def __init__(self, job_id: str, cursor: str, lost: Lost | None = None, erased_to: int = 0) -> None:
        self.job_id = job_id
        self.erased = 0
        self._erased_to = erased_to
        self.seq = 0  # of the last event taken
        self.sealed_to = 0
        self.unsealed = 0
        self.oldest_unsealed: int | None = None  # ms
        self._cursor = cursor
        self._lost = (lost or {}).get(job_id, ())
        self._heads = {first_head(job_id)}  # the heads the next range may follow
        self._ranges: deque[tuple[Range, bool]] = deque()  # with whether it holds in itself
        self._wrong: dict[int, tuple[Stored, bool]] = {}  # events that are not what was sealed
        self._missing: list[tuple[int, int]] = []
        self._expected: dict[int, bytes] = {}  # leaves of what is wrong or missing
        self._findings: list[Finding] = []
        self._ended = False  # a terminal event was the last
        self.is_act = False  # its first event is an administrative act

    def cover(self, one: Range) -> None:
        """The next range of this job."""
        whole = len(one.leaves) == HASH_BYTES * (one.last_seq - one.first_seq + 1) > 0
        holds = whole and one.head in {head_after(head, one.leaves) for head in self._heads}
        if one.first_seq != self.sealed_to + 1 and not self._is_lost(self.sealed_to + 1):
            detail = f"nothing seals the events from {self.sealed_to + 1} to {one.first_seq - 1}"
            self._findings.append(Finding("seal", detail, self.job_id, self.sealed_to + 1, one.seal))
            holds = whole  # its head cannot be told
        elif one.first_seq != self.sealed_to + 1:
            holds = whole
        self._heads = {one.head} if holds else {one.head, *(head_after(head, one.leaves) for head in self._heads)}
        self._ranges.append((one, holds))
        self.sealed_to = one.last_seq
        if not holds:
            detail = f"the record that seals events {one.first_seq} to {one.last_seq} was edited"
            self._findings.append(Finding("seal", detail, self.job_id, one.first_seq, one.seal))

    def take(self, stored: Stored) -> None:
        """The next event."""
        envelope = stored.envelope
        if envelope.seq > self.seq + 1:
            self._gone(self.seq + 1, envelope.seq - 1)
        self.seq = envelope.seq
        self.is_act = self.is_act or (envelope.seq == 1 and envelope.type == ACT)
        one, holds = self._range(envelope.seq)
        if one is None:
            self._take_unsealed(stored)
        elif envelope.leaf != one.leaf(envelope.seq) or self._unlike_itself(stored):
            self._expect(envelope.seq, one)
            if len(self._wrong) < JUDGED_MAX:
                self._wrong[envelope.seq] = stored, holds
        self._ended = envelope.type in TERMINAL

    def end(self, ending: Ending | None) -> list[Finding]:
        """What is wrong with the job, its first event first. `ending` is the job's row, read after its events."""
        through = max([self.sealed_to, ending.last_seq if ending else 0, *(last for _, last in self._lost)])
        if self.seq == 0 and through:
            detail = "every event of the job is gone" + ("" if ending else ", and its row")
            return [Finding("missing", detail, self.job_id, 1)]
        found = [*self._findings, *self._judged()]
        if self.seq < through:
            found.append(
                Finding("cut", f"the end is gone: events {self.seq + 1} to {through}", self.job_id, self.seq + 1)
            )
        if ending is None or (ending.status == ACT) != self.is_act:
            found.append(Finding("missing", f"the {'act' if self.is_act else 'job'}'s row is gone", self.job_id))
        elif self.seq > ending.last_seq:
            detail = "an act is one event" if self.is_act else f"the job's row ends at {ending.last_seq}"
            found.append(Finding("added", detail, self.job_id, ending.last_seq + 1))
        return sorted(_once(found), key=lambda finding: finding.seq or 0)

    def taken_out(self, last_seq: int) -> list[Finding]:
        """Instead of `end`, of a job whose events retention took out and nobody can read any more: its chain is left."""
        if self.sealed_to == last_seq or self._is_lost(last_seq):
            return _once(self._findings)
        detail = f"retention took out {last_seq} events, of which {self.sealed_to} are sealed"
        return [*_once(self._findings), Finding("missing", detail, self.job_id, self.sealed_to + 1)]

    def _take_unsealed(self, stored: Stored) -> None:
        envelope = stored.envelope
        if self._is_lost(envelope.seq):
            return
        self.unsealed += 1
        self.oldest_unsealed = min(envelope.at, self.oldest_unsealed or envelope.at)
        wrong: tuple[What, str] | None = None
        if self._unlike_itself(stored):
            wrong = "changed", "its data are not those of its digest and size"
        elif envelope.seq <= self.sealed_to or (self._behind(envelope.place) and not self._missing):
            wrong = "added", "it stands among events that were sealed without it"
        elif self._ended and envelope.type != "reopened":
            wrong = "added", f"a {envelope.type} event after the end of the job"
        if wrong and len(self._findings) < JUDGED_MAX:
            self._findings.append(Finding(*wrong, self.job_id, envelope.seq))

    def _behind(self, place: str) -> bool:
        return bool(self._cursor) and at_or_behind(self._cursor, place)

    def _gone(self, first: int, last: int) -> None:
        self._missing.append((first, last))
        for seq in range(first, min(last, first + JUDGED_MAX) + 1):
            one, _ = self._range(seq)
            if one is not None:
                self._expect(seq, one)

    def _range(self, seq: int) -> tuple[Range | None, bool]:
        while self._ranges and self._ranges[0][0].last_seq < seq:
            self._ranges.popleft()
        if self._ranges and self._ranges[0][0].first_seq <= seq:
            return self._ranges[0]
        return None, False

    def _expect(self, seq: int, one: Range) -> None:
        if len(self._expected) < JUDGED_MAX:
            self._expected[seq] = one.leaf(seq)

    def _judged(self) -> Iterator[Finding]:
        for first, last in self._missing:
            yield Finding(
                "missing",
                f"event {first} is gone" if first == last else f"events {first} to {last} are gone",
                self.job_id,
                first,
            )
        for seq, (stored, holds) in self._wrong.items():
            if _differs(stored) and not self._is_erased(stored):
                yield Finding("changed", "its data are not those of its digest and size", self.job_id, seq)
            elif not holds:
                yield Finding("seal", "its hash in the record that seals it was edited, or it was", self.job_id, seq)
            elif (other := self._sealed_as(stored, seq)) is not None:
                yield Finding("moved", f"it is the event that was sealed as {other}", self.job_id, seq)
            else:
                yield Finding("changed", "it is not the event that was sealed", self.job_id, seq)

    def _unlike_itself(self, stored: Stored) -> bool:
        """Whether the data are not those its own columns speak of, nor what an erasure leaves."""
        if not _differs(stored):
            return False
        erased = self._is_erased(stored)
        self.erased += erased
        return not erased

    def _is_erased(self, stored: Stored) -> bool:
        if stored.envelope.seq > self._erased_to or len(stored.data) != stored.size:
            return False
        try:
            return redacted(stored.recorded()) == stored.data
        except (ValueError, Unstorable):  # nothing an erasure leaves
            return False

    def _sealed_as(self, stored: Stored, seq: int) -> int | None:
        others = (other for other in self._expected if other != seq)
        return next((other for other in others if stored.envelope.leaf_at(other) == self._expected[other]), None)

    def _is_lost(self, seq: int) -> bool:
        return any(first <= seq <= last for first, last in self._lost)


def _differs(stored: Stored) -> bool:
    """Whether the data are not those its own columns speak of."""
    data = stored.data
    return len(data) != stored.size or hashlib.sha256(data.encode()).digest() != stored.envelope.digest


def _once(findings: Iterable[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))

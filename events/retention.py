"""Retention: for how long a job is kept after its end, by outcome and engine. PURE.

A rule reads `completed=30d`, or `fpl.completed=365d` for one engine, which wins over the rule for all. What no rule names is
kept for ever; so is a job that is pinned or held (events/holds.py), for as long as it is.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from events.acts import By, Deed

STATUSES = ("completed", "failed", "cancelled")  # of jobs that have ended
FOREVER = "forever"
WEEK_MS = 7 * 24 * 3600 * 1000  # objects are of one, as partitions are
_AGE = re.compile(r"(\d{1,9})([smhd])")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RETENTION = By("system:retention")
_ENGINE = re.compile(r"[a-z][a-z0-9_]{0,62}")


def id_at(ms: int) -> str:
    """The first UUIDv7 of this millisecond."""
    digits = f"{max(ms, 0):012x}".ljust(32, "0")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@dataclass(frozen=True, slots=True)
class Rule:
    """Jobs that ended so, of this engine (None: of all that have no rule of their own), go this long after their end.
    `age_ms` None: never."""

    status: str
    engine: str | None
    age_ms: int | None

    def __str__(self) -> str:
        name = self.status if self.engine is None else f"{self.engine}.{self.status}"
        return f"{name}={FOREVER if self.age_ms is None else _shown(self.age_ms)}"


def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules of a comma-separated setting. Raises `ValueError` that names the one that is wrong."""
    rules: dict[tuple[str, str | None], Rule] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        rule = _parse(word)
        if (rule.status, rule.engine) in rules:
            raise ValueError(f"{word!r}: there are two rules for it")
        rules[rule.status, rule.engine] = rule
    return tuple(rules.values())


def _parse(word: str) -> Rule:
    name, equals, age = (part.strip() for part in word.partition("="))
    engine, _, status = name.rpartition(".")
    if not equals or status not in STATUSES:
        raise ValueError(
            f"{word!r}: a rule is `completed=30d`, `failed=180d`, `cancelled=30d` or `ENGINE.completed=365d`"
        )
    if engine and not _ENGINE.fullmatch(engine):
        raise ValueError(f"{word!r}: {engine!r} is no name of an engine")
    if age == FOREVER:
        return Rule(status, engine or None, None)
    found = _AGE.fullmatch(age)
    if not found:
        raise ValueError(f"{word!r}: an age is a whole number and s, m, h or d, or `{FOREVER}`")
    return Rule(status, engine or None, int(found[1]) * _UNIT_MS[found[2]])


def _shown(age_ms: int) -> str:
    unit = next((unit for unit in ("d", "h", "m") if age_ms and age_ms % _UNIT_MS[unit] == 0), "s")
    return f"{age_ms // _UNIT_MS[unit]}{unit}"


@dataclass(frozen=True, slots=True)
class Due:
    """A job that is to go, as it stood: of another `last_seq` it is not to go any more."""

    job_id: str
    tenant: str
    engine: str
    status: str
    last_seq: int
    finished_at: int  # ms
    erased: bool = False  # so what is read from now on has no payload; an erasure since makes it another job to archive


@dataclass(frozen=True, slots=True)
class Archived:
    """Where a job that went is: `length` bytes from `start` of an object in the archive; of one that was discarded there
    is no `place`. Instants in ms."""

    job_id: str
    tenant: str
    engine: str
    status: str
    last_seq: int
    finished_at: int
    at: int
    place: str | None
    start: int
    length: int


def gone_to(due: Due, place: str | None, start: int, length: int) -> Archived:
    """What to record of a job, before it is."""
    whose = due.job_id, due.tenant, due.engine, due.status, due.last_seq, due.finished_at
    return Archived(*whose, 0, place, start, length)


def deeds(went: Sequence[Archived]) -> list[tuple[str, Deed]]:
    """What to tell each tenant of those that went."""
    by_tenant: dict[str, list[Archived]] = {}
    for one in went:
        by_tenant.setdefault(one.tenant, []).append(one)
    told: list[tuple[str, Deed]] = []
    for tenant, jobs in by_tenant.items():
        changed = {"jobs": len(jobs), "events": sum(one.last_seq for one in jobs)}
        if jobs[0].place is None:
            ids = {"job_ids": [one.job_id for one in jobs]}  # an audit holds the records of them against this
            told.append((tenant, _RETENTION.did("jobs_discarded", tenant, **changed, **ids)))
        else:
            told.append((tenant, _RETENTION.did("jobs_archived", jobs[0].place, **changed)))
    return told


@dataclass(frozen=True, slots=True)
class Pin:
    """Somebody wants a job kept for ever. `at` in ms."""

    job_id: str
    tenant: str
    at: int
    actor: str
    address: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a rule would remove now, and what stays although it is old enough."""

    rule: Rule
    due: int
    kept: int  # pinned, held, or their webhooks not delivered
    oldest_at: int | None  # ms, of the first to end


class RetentionLog(Protocol):
    """What retention asks of the log's database. Every call raises `LogUnavailable` within its deadline."""

    async def first_job(self) -> str | None:
        """The lowest id of a job."""

    async def due_for_archive(self, rules: Sequence[Rule], limit: int, after: str = "", before: str = "") -> list[Due]:
        """Jobs to go by these rules, in id order between two ids."""

    async def waiting_for_archive(self, rules: Sequence[Rule]) -> list[Waiting]:
        """What each rule comes to, for people."""

    async def artifact_names(self, job_id: str) -> list[str]:
        """The SHA-256 (hex) of each large value of a job."""

    async def put_archived(self, went: Sequence[Archived], erased: Collection[str] = ()) -> set[str]:
        """Takes jobs out, all in one transaction, and records where they are, at the database's time. Left out, and not
        returned, are those that changed, were pinned, held or erased since they were found: `erased` are those that had
        been before. An act of each tenant's."""

    async def archives_any(self) -> bool:
        """Whether some job lies in the archive."""

    async def places(self) -> set[str]:
        """Every object some job lies in."""

    async def drop_archived(self) -> int:
        """Removes events of jobs that went: on PostgreSQL partitions in which no other are left, on SQLite theirs. Returns
        the number of partitions, or of jobs."""

    async def pin(self, job_id: str, tenant: str, by: By) -> None:
        """Keeps a job, from the database's time on; the last pin counts. An act. Raises `JobArchived` when it went."""

    async def unpin(self, job_id: str, by: By) -> bool:
        """Lets retention have it again; False when it was not pinned. An act."""

    async def pinned(self, job_id: str) -> Pin | None:
        """Who keeps it."""

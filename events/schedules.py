"""Schedules: jobs made again and again, at the ticks of a cron expression in a time zone.

Port and rules. A tick is an instant in ms. What makes a tick's job exactly once is its idempotency key, drawn from the
schedule's id and the tick: processes that make the same tick at once, or again after a crash, make one job.

Daylight saving is treated as Debian's cron does: an expression with fixed hours and minutes ticks once a day whatever the
clocks do (at the end of an hour that is left out, in the first of one that comes twice), one with `*` or `*/n` in either
goes on by real time.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any, Literal, Protocol, assert_never, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from events.catalog import Idempotency

CatchUp = Literal["skip", "last", "all"]
CATCH_UPS: tuple[CatchUp, ...] = get_args(CatchUp)
Act = Literal["created", "paused", "resumed", "deleted", "skipped", "failed"]
CRON_CHARS_MAX = 100
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
SCHEDULES_MAX = 1000  # of one tenant
SCHEDULES_CHARS_MAX = 4 * 1024 * 1024  # of what they submit, together: a list shows all of it
CATCH_UP_MAX = 100  # jobs made for one outage, with `all`
ON_TIME_MS = 60_000  # a tick seen this late is not missed: somebody has to take over first
LOOK_BACK_MS = 7 * 24 * 3600 * 1000  # of a frequent schedule, older ticks are not made up
FREQUENT = 2000  # so many missed ticks make it one
SYSTEM = "system:schedules"  # who makes the jobs


class BadSchedule(ValueError):
    """`field` is `cron` or `timezone`, or `schedule` for one that a newer version made and this one cannot read."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it stands. Instants in ms; `next_at` is None while it is paused."""

    id: str
    tenant: str
    name: str
    cron: str
    timezone: str
    catch_up: CatchUp
    catch_up_max: int
    job: Mapping[
        str, Any
    ]  # what to submit: engine, params, priority, max_attempts, timeouts, tags, unique_key, unique_mode
    created_at: int
    created_by: str  # an actor
    next_at: int | None = None
    last_at: int | None = None  # the last tick a job was made for
    last_job_id: str | None = None

    @property
    def paused(self) -> bool:
        """Whether it makes no jobs for now."""
        return self.next_at is None

    def after(self, instant: int) -> int:
        """The first tick after an instant. Raises `BadSchedule`."""
        for tick in self._ticks(instant):
            return tick
        raise BadSchedule("cron", "never comes")

    def due(self, now: int) -> "Due":
        """What to do at `now`, at or after `next_at`, by the rule for catching up."""
        begin = now if self.next_at is None else self.next_at
        ticks = self._until(begin - 1, now, FREQUENT)
        if cut := len(ticks) == FREQUENT:
            ticks = self._until(max(begin - 1, now - LOOK_BACK_MS), now, None)
        match self.catch_up:
            case "skip":
                wanted = [tick for tick in ticks if now - tick <= ON_TIME_MS]
            case "last":
                wanted = ticks[-1:]
            case "all":
                wanted = ticks[-self.catch_up_max :]
            case _:
                assert_never(self.catch_up)
        missed = begin if cut or wanted[:1] != ticks[:1] else None
        return Due(tuple(wanted), missed, self.after(max(now, begin)))

    def _until(self, after: int, now: int, most: int | None) -> list[int]:
        return list(islice(takewhile(lambda tick: tick <= now, self._ticks(after)), most))

    def _ticks(self, after: int) -> Iterator[int]:
        """Every tick after an instant. Compared as instants: local times come twice, or run backwards."""
        zone = zone_of(self.timezone)
        last = after
        for at in _cron(self.cron, datetime.fromtimestamp(after // 1000, zone)):
            tick = int(at.astimezone(UTC).timestamp()) * 1000
            if tick > last:
                last = tick
                yield tick

    def idempotency(self, tick: int) -> Idempotency:
        """What makes a tick's job one. No client can send this key: theirs have no NUL."""
        digest = hashlib.sha256(f"\0schedule {self.id} {tick}".encode()).hexdigest()
        return Idempotency(key_sha256=digest, fingerprint=digest)


@dataclass(frozen=True, slots=True)
class Due:
    """Ticks to make jobs for, oldest first; the first tick that is left out, if any; and when to look again."""

    ticks: tuple[int, ...]
    missed_from: int | None
    next_at: int


@dataclass(frozen=True, slots=True)
class ScheduleAct:
    """Something that was done with a schedule, or by it: when, by whom, from where, and what of it is to be known, such as why."""

    act: Act
    at: int
    actor: str
    address: str | None = None
    detail: str | None = None


def checked(schedule: Schedule, now: int) -> Schedule:
    """The schedule with its first tick after `now`. Raises `BadSchedule`."""
    if len(schedule.cron) > CRON_CHARS_MAX or len(schedule.cron.split()) != 5:
        raise BadSchedule("cron", "has five fields: minute, hour, day of month, month, day of week")
    zone_of(schedule.timezone)
    _cron(schedule.cron, datetime.fromtimestamp(now // 1000, UTC))
    return replace(schedule, next_at=schedule.after(now))


def zone_of(name: str) -> ZoneInfo:
    """A time zone of the IANA database. Raises `BadSchedule`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadSchedule("timezone", "is no name of the IANA time zone database, such as Europe/Zurich") from None


def _cron(expression: str, at: datetime) -> Iterator[datetime]:
    try:
        return CronSim(expression, at)
    except CronSimError as wrong:
        raise BadSchedule("cron", str(wrong)) from None


class Schedules(Protocol):
    """Where schedules are kept: in the log's database. Every call raises `LogUnavailable` within its deadline. A change is
    recorded in the same transaction: with the schedule, and what somebody did also in the audit (`events/acts.py`)."""

    async def add_schedule(self, schedule: Schedule, recorded: ScheduleAct) -> Literal["made", "taken", "full"]:
        """Stores a new one, unless the tenant has one of that name, or too many."""

    async def schedules(self, tenant: str) -> list[Schedule]:
        """All of a tenant, by name."""

    async def schedule(self, tenant: str, name: str) -> Schedule | None:
        """One of them."""

    async def set_schedule(self, schedule_id: str, next_at: int | None, recorded: ScheduleAct) -> bool:
        """Pauses it (None) or lets it go on; False when it is gone."""

    async def drop_schedule(self, schedule_id: str, recorded: ScheduleAct) -> bool:
        """Removes it; what was recorded of it stays. False when it is gone."""

    async def schedule_acts(self, schedule_id: str, limit: int) -> list[ScheduleAct]:
        """What was recorded of one, newest first."""

    async def due_schedules(self, limit: int) -> list[Schedule]:
        """Those whose next tick has come by the database's clock, the longest waiting first."""

    async def advance_schedule(self, done: Schedule, next_at: int, recorded: Sequence[ScheduleAct]) -> bool:
        """Moves it behind its ticks, keeping `last_at` and `last_job_id` of `done`; False when another process did, or
        somebody paused or removed it."""

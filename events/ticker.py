"""Makes the jobs of schedules when their ticks come: what the sweeper's task `schedules` does.

A tick's jobs are made first, then the schedule moves behind it. A process that dies in between leaves a tick to be made
again, which its idempotency key answers with the job that is there; one that made no job, as its unique key was taken, is
judged again (docs/protocol.md).
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from pydantic import ValidationError

from events import crash_points
from events.catalog import PhaseEnd, Scheduled, Submit, Submitted, Timeouts
from events.clock import rfc3339
from events.committer import Committer, new_command_id
from events.declaration import subject_of
from events.errors import PhaselineError, Refused, Unavailable
from events.log import EngineRow, Log
from events.schedules import SYSTEM, BadSchedule, Due, Schedule, ScheduleAct, Schedules
from events.telemetry import Telemetry

PASS_MAX = 100  # schedules in one pass; the next look finds the others

_log = logging.getLogger(__name__)


class Ticker:
    """`tick` makes what is due now. Raises `Unavailable`: then the rest is made at the next look."""

    def __init__(
        self, log: Log, schedules: Schedules, committer: Committer, telemetry: Telemetry | None = None
    ) -> None:
        self._log = log
        self._schedules = schedules
        self._committer = committer
        self._metrics = (telemetry or Telemetry()).schedules

    async def tick(self) -> None:
        """Every schedule that is due, one after the other."""
        due = await self._schedules.due_schedules(PASS_MAX)
        if not due:
            return
        now = await self._log.now()
        engines = {engine.name: engine for engine in await self._log.engines()}
        for schedule in due:
            try:
                await self._tick(schedule, _due(schedule, now), now, engines)
            except BadSchedule as broken:  # checked when it was made: a time zone that is no more, say
                words = f"{broken.field}: {broken}"
                _log.warning("schedule %s of tenant %s is paused: %s", schedule.name, schedule.tenant, words)
                await self._schedules.set_schedule(schedule.id, None, ScheduleAct("paused", now, SYSTEM, detail=words))
                self._metrics.paused.inc()
            except Unavailable:
                raise
            except Exception:  # a boundary: no schedule waits for another's mistake
                _log.exception("schedule %s of tenant %s is tried again", schedule.name, schedule.tenant)

    async def _tick(self, schedule: Schedule, due: Due, now: int, engines: Mapping[str, EngineRow]) -> None:
        recorded: list[ScheduleAct] = []
        if due.missed_from is not None:
            until = due.ticks[0] if due.ticks else due.next_at
            words = f"ticks from {rfc3339(due.missed_from)} to before {rfc3339(until)} by catch_up {schedule.catch_up}"
            recorded.append(ScheduleAct("skipped", now, SYSTEM, detail=words))
        done = schedule
        for tick in due.ticks:
            try:
                command = _command(schedule, tick, engines)
                row, _ = await self._committer.submit(command, tenant=schedule.tenant)
                done = replace(done, last_at=tick, last_job_id=row.job.id)
            except Unavailable:
                raise
            except PhaselineError as refusal:
                recorded.append(ScheduleAct("failed", now, SYSTEM, detail=f"{rfc3339(tick)}: {refusal}"))
                _log.warning("schedule %s of tenant %s: %s", schedule.name, schedule.tenant, refusal)
        if due.ticks:
            crash_points.reached("schedule.made")
        if await self._schedules.advance_schedule(done, due.next_at, recorded):
            said = Counter(act.act for act in recorded)
            self._metrics.ticks.labels("made").inc(len(due.ticks) - said["failed"])
            self._metrics.ticks.labels("failed").inc(said["failed"])
            self._metrics.ticks.labels("skipped").inc(said["skipped"])


def _due(schedule: Schedule, now: int) -> Due:
    """Raises `BadSchedule`, also for what a newer version wrote and this one does not know."""
    try:
        return schedule.due(now)
    except BadSchedule:
        raise
    except Exception as broken:
        raise BadSchedule("schedule", _unknown(broken)) from broken


def _command(schedule: Schedule, tick: int, engines: Mapping[str, EngineRow]) -> Submit:
    """Makes the tick's job, or finds the unfinished one that has its unique key. Raises `Refused`, also for what a newer
    version wrote and this one does not know."""
    try:
        asked = dict(schedule.job)
        mode = asked.pop("unique_mode", "return")
        engine = engines.get(asked["engine"])
        if engine is None:
            raise Refused(f"there is no engine {asked['engine']!r}")
        submitted = Submitted(
            **asked | {"timeouts": Timeouts(**asked["timeouts"]), "tags": tuple(asked["tags"])},
            engine_version=engine.version,
            phases=tuple(PhaseEnd(name=phase["name"], until=phase["until"]) for phase in engine.phases),
            subject=subject_of(engine.params_schema, asked["params"]),
            idempotency=schedule.idempotency(tick),
            schedule=Scheduled(name=schedule.name, tick=tick),
        )
        return Submit(command_id=new_command_id(), actor=SYSTEM, submitted=submitted, unique_mode=mode)
    except PhaselineError:
        raise
    except Exception as broken:
        raise Refused(_unknown(broken)) from broken


def _unknown(broken: Exception) -> str:
    if isinstance(broken, ValidationError):
        first = broken.errors(include_url=False, include_input=False)[0]
        return f"this version does not know {'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"this version cannot read it: {broken!r}"

"""One soak: a fleet, people, faults; then everything is healed, settles, and is held against every promise."""

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from events.catalog import TERMINAL
from events.checker import Violation
from events.log import JobQuery, Log
from phaseline import database
from phaseline.settings import Settings
from phaseline.verify import Counts, lines_of, verify
from tests.installation import api
from tests.servers import PostgresServer, RabbitServer
from tests.soak.fleet import MIB, Fleet, fleet_on
from tests.soak.load import Crowd, Gap, mismatches
from tests.soak.plan import drawn
from tests.stores import open_bus, open_log

SETTLE_S = 120.0
LOOK_S = 0.3


@dataclass
class Takeovers:
    """Lost attempts that were followed by another, in seconds."""

    from_interrupted: list[float] = field(default_factory=list)
    from_last_event: list[float] = field(default_factory=list)
    undisturbed: list[float] = field(default_factory=list)  # from the last event, with PostgreSQL within reach


@dataclass
class Summary:
    """What a soak did, as `docs/reliability.md` shows it."""

    seed: int
    minutes: float
    fleet: Fleet
    crowd: Crowd
    counts: Counts
    types: Counter[str]
    takeovers: Takeovers
    settled_s: float

    def __str__(self) -> str:
        told, crowd = self.crowd.told, self.crowd
        ends = ", ".join(f"{self.types[kind]} {kind}" for kind in sorted(TERMINAL))
        faults = ", ".join(f"{kind} {count}" for kind, count in self.fleet.faults.most_common())
        memory = ", ".join(f"{kind} {size / MIB:.0f} MiB" for kind, size in sorted(self.fleet.memory.items()))
        calls = f"{told.unknown} calls without an answer, {told.unavailable} answered 503"
        after = [_after_the_faults(gap, self.fleet) for gap in crowd.gaps]
        return "\n".join(
            [
                f"seed {self.seed}, {self.minutes:g} minutes: no violation",
                f"jobs         {len(told.accepted)} accepted, {self.counts.jobs} in the log; {ends}; {self.types['reopened']} reopened, {told.reruns} reruns",
                f"calls        {told.cancels} cancels answered, {calls}",
                f"events       {self.counts.events} checked, {self.counts.copied} messages in the copy",
                f"viewers      {self.counts.recordings} recordings, {crowd.connections} connections, {crowd.breaks} broken or dropped",
                f"faults       {sum(self.fleet.faults.values())}: {faults}",
                f"attempts     {self.types['started']} started, {self.types['lost']} lost, {self.types['drained']} drained, {self.types['released']} released, {self.types['retry']} retried",
                f"takeovers    interrupted → started: {_spread(self.takeovers.from_interrupted)}",
                f"             last event → started:  {_spread(self.takeovers.from_last_event)}",
                f"             of these, with no fault of PostgreSQL or a line: {_spread(self.takeovers.undisturbed)}",
                f"reconnects   last frame → caught up: {_spread([gap.back_at - gap.lost_at for gap in crowd.gaps])}",
                f"             of that, with no fault going on: {_spread(after)}",
                f"memory       at most: {memory}",
                f"settled      {self.settled_s:.1f} s after the last fault was healed",
            ]
        )


async def soak(seed: int, minutes: float, postgres: PostgresServer, rabbit: RabbitServer) -> Summary:
    """Runs it. Raises `AssertionError` with the seed, the violation and where the recordings and outputs lie."""
    folder = Path(tempfile.mkdtemp(prefix="phaseline-soak-"))
    try:
        summary = await _soak(seed, minutes, postgres, rabbit, folder)
    except BaseException as broken:
        broken.add_note(f"soak of seed {seed}, {minutes:g} minutes; recordings and outputs are in {folder}")
        raise
    shutil.rmtree(folder)
    return summary


async def _soak(seed: int, minutes: float, postgres: PostgresServer, rabbit: RabbitServer, folder: Path) -> Summary:
    database_url = await asyncio.to_thread(postgres.create_database)
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    settings = Settings(database_url=database_url, rabbitmq_url=None)
    await database.migrate(settings)
    async with fleet_on(postgres, rabbit, database_url, rabbit_url, _environment(), folder) as fleet:
        crowd = Crowd(fleet, folder, seed)
        async with asyncio.TaskGroup() as viewers, asyncio.TaskGroup() as beside:
            memory = beside.create_task(fleet.watch())
            working = beside.create_task(crowd.work(viewers))
            await fleet.suffer(drawn(seed, minutes * 60))
            crowd.over.set()
            await fleet.healed()
            healed_at = time.monotonic()
            await working
            async with open_log(settings) as log:
                await _settled(log, fleet, crowd)
            settled_s = time.monotonic() - healed_at
            await _viewers_done(crowd)
            memory.cancel()
        async with open_log(settings) as log, open_bus(rabbit_url, "verifier") as bus:
            recordings = {path.name: lines_of(path) for path in crowd.recordings}
            try:
                counts = await verify(log, bus, recordings, settled=True)
            except Violation as violation:
                raise AssertionError(str(violation)) from violation
            types, openings, takeovers = await _history(log, fleet)
        wrong = mismatches(crowd.told, openings)
        assert not wrong, wrong
        assert not fleet.surprises, "\n".join(fleet.surprises)
        await fleet.stopped()
    return Summary(seed, minutes, fleet, crowd, counts, types, takeovers, settled_s)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PHASELINE_")}


async def _settled(log: Log, fleet: Fleet, crowd: Crowd) -> None:
    """Cancels what would go on for ever and waits until every job has ended."""
    long = [job_id for job_id, story in crowd.told.accepted.items() if story == "long"]
    async with asyncio.timeout(SETTLE_S + len(long)), api(fleet.gateways[0].url) as http:
        for job_id in long:
            head = await log.head(job_id)
            if head is not None and head.status in {"queued", "running"}:
                await http.post(f"/api/v1/jobs/{job_id}/cancel", {"mode": "force"})
        while open_jobs := (await log.jobs(JobQuery("default", status=("queued", "running")))).rows:
            for row in open_jobs:
                # Submitted without an answer, so nobody cared for it.
                if row.job.engine == "countdown" and '"steps":10000' in row.params and not row.job.cancel_mode:
                    await http.post(f"/api/v1/jobs/{row.job.id}/cancel", {"mode": "force"})
            await asyncio.sleep(LOOK_S)


async def _viewers_done(crowd: Crowd) -> None:
    """Every viewer reaches the end of its stream now that nothing breaks any more."""
    try:
        async with asyncio.timeout(SETTLE_S):
            while crowd.watching:  # noqa: ASYNC110 tasks of another group, which ends only with them
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise AssertionError(f"viewers that never reached the end: {sorted(crowd.watching)}") from None


async def _history(log: Log, fleet: Fleet) -> tuple[Counter[str], dict[str, int], Takeovers]:
    """Counts of event types and of interruptions by reason, `reopened` by job, and how long takeovers took."""
    types: Counter[str] = Counter()
    openings: dict[str, int] = {}
    takeovers = Takeovers()
    before_at = 0
    # On the one clock of this machine, in ms, as events have it.
    offset_s = time.time() - time.monotonic()
    cut_off = [
        ((begin + offset_s) * 1000, (end + offset_s) * 1000)
        for begin, end, kind in fleet.intervals
        if kind.endswith(("PostgreSQL", "line"))
    ]
    lost: tuple[int, int] | None = None  # when the attempt last said something, and when it was given up
    async for recorded in log.all_events():
        kind = recorded.type
        types[kind] += 1
        openings.setdefault(recorded.job_id, 0)
        openings[recorded.job_id] += kind == "reopened"
        if recorded.seq == 1:
            lost = None
        if kind == "interrupted":
            reason = recorded.data.partition('"reason":"')[2].partition('"')[0]
            types[reason] += 1
            lost = (before_at, recorded.at) if reason == "lost" else None
        elif kind == "started" and lost is not None:
            takeovers.from_last_event.append((recorded.at - lost[0]) / 1000)
            takeovers.from_interrupted.append((recorded.at - lost[1]) / 1000)
            if not any(begin < recorded.at and end > lost[0] for begin, end in cut_off):
                takeovers.undisturbed.append((recorded.at - lost[0]) / 1000)
            lost = None
        before_at = recorded.at
    return types, openings, takeovers


def _after_the_faults(gap: Gap, fleet: Fleet) -> float:
    """How much of a gap no fault was going on in."""
    free, at = 0.0, gap.lost_at
    for begin, end, _ in sorted(fleet.intervals):
        if end <= at or begin >= gap.back_at:
            continue
        free += max(begin - at, 0.0)
        at = max(at, end)
    return free + max(gap.back_at - at, 0.0)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    ranked = sorted(values)
    late = ranked[int(len(ranked) * 0.95)] if len(ranked) > 1 else ranked[0]
    return f"{len(values)}, p50 {statistics.median(values):.2f} s, p95 {late:.2f} s, max {ranked[-1]:.2f} s"

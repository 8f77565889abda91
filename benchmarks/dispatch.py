"""Jobs: how soon one starts, and how many end a second, beside the peers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import psutil

from benchmarks.bench import SLOTS, Bench, Row, System, finished, followed
from benchmarks.measure import Bound, Figure, Results, in_turns
from benchmarks.peering import Peers, enough_jobs
from tests.installation import Api
from tests.servers import PrivatePostgres, PrivateRabbit

BROKERS = ("taskiq", "dramatiq")  # keep nothing but the message
DURABLE = ("celery", "procrastinate", "pgqueuer", "dbos")  # keep their state in Postgres
SUBMITTING_MAX = 32
SETTLE_S = 1.5
IDLE_S = 0.03  # between two jobs of an idle system


class Start(Row):
    """From before the submit to the job's first line, one at a time on an idle system."""

    async def measure(self, bench: Bench, results: Results) -> None:
        jobs = bench.size(40, 15)
        system = await bench.shared()
        async with Peers(bench, *BROKERS, *DURABLE, "restate") as peers:

            async def ours() -> Sequence[float]:
                waits = []
                for _ in range(jobs):
                    await asyncio.sleep(IDLE_S)
                    waits.append(await start(system.http))
                return waits

            found = await in_turns(
                bench.repeats, {"ours": ours, **peers.measures("start", jobs=jobs, seconds=bench.size(6, 2))}
            )
        results.add(
            Figure(
                "idle submit → engine code", "ms", found["ours"],
                note="HTTP POST to the engine's first line in its own process; job row and two events in Postgres by then",
                against=peers.titles("start"), reach=(Bound("p50", most=5), Bound("p99", most=15)),
            )
        )  # fmt: skip
        peers.report(results, "start", "idle submit → task code", "ms", found)


class Tickets(Row):
    """The same jobs by tickets in classic queues of RabbitMQ, which keep them in memory, and in quorum queues."""

    async def measure(self, bench: Bench, results: Results) -> None:
        await bench.alone()
        jobs, parts = bench.size(1000, 200), ("RabbitMQ", "all")
        turns: dict[str, list[dict[str, float]]] = {"quorum": [], "classic": []}
        async with AsyncExitStack() as stack:
            systems = {
                kind: await stack.enter_async_context(bench.system(PHASELINE_SLOTS=SLOTS, PHASELINE_TICKET_QUEUES=kind))
                for kind in turns
            }
            for _ in range(bench.repeats):
                for kind, system in systems.items():
                    cost = await _cost(bench, system, "noop", jobs)
                    turns[kind].append(cost | {"all": sum(cost.values())})
        for part in parts:
            for kind, costs in turns.items():
                against = (f"a no-op job, quorum queues: {part}",) if kind == "classic" else ()
                found = [[cost[part]] for cost in costs]
                results.add(Figure(f"a no-op job, {kind} queues: {part}", "ms of a core", found, against=against))


class Noop(Row):
    """Many jobs at once that do nothing, from the first submit to the last one's queryable end."""

    async def measure(self, bench: Bench, results: Results) -> None:
        system = await bench.shared()
        async with Peers(bench, *DURABLE, *BROKERS, "restate") as peers:
            measures = {"ours": await rate(bench, system.http, "noop"), **peers.measures("noop")}
            found = await in_turns(bench.repeats, measures)
            kept = await _events_of_one(system, "noop")
        results.add(
            Figure(
                "no-op jobs", "jobs/s", found["ours"],
                note=f"over HTTP; {kept} events a job, all kept, state queryable; 16 slots, a process each",
                against=peers.titles("noop"),
                reach=(
                    Bound("p50", least=700),
                    Bound("ratio", least=5, to="Celery"),
                    *(Bound("ratio", least=1, to=name) for name in ("procrastinate", "PgQueuer", "DBOS")),
                ),
            )
        )  # fmt: skip
        peers.report(results, "noop", "no-op jobs", "jobs/s", found)


class FivePhase(Row):
    """Jobs that enter five phases, from the first submit to the last one's queryable end."""

    async def measure(self, bench: Bench, results: Results) -> None:
        system = await bench.shared()
        async with Peers(bench, "celery", "dbos", "restate") as peers:
            measures = {"ours": await rate(bench, system.http, "fivephase"), **peers.measures("fivephase")}
            found = await in_turns(bench.repeats, measures)
            kept = await _events_of_one(system, "fivephase")
        results.add(
            Figure(
                "five-phase jobs", "jobs/s", found["ours"],
                note=f"over HTTP; {kept} events a job, all kept, streamed to viewers, replayable; 16 slots",
                against=peers.titles("fivephase"),
                reach=(
                    Bound("p50", least=400), Bound("ratio", least=20, to="Celery"), Bound("ratio", least=10, to="DBOS"),
                ),
            )
        )  # fmt: skip
        peers.report(results, "fivephase", "five-state jobs", "jobs/s", found)


class Shares(Row):
    """Which process a job's processor time goes to: what a busy machine blurs least."""

    async def measure(self, bench: Bench, results: Results) -> None:
        jobs, system = bench.size(1000, 200), await bench.shared()

        for engine, named in (("noop", "no-op job"), ("fivephase", "five-phase job")):
            turns = [await _cost(bench, system, engine, jobs) for _ in range(bench.repeats)]
            for part in turns[0]:
                results.add(Figure(f"a {named}: {part}", "ms of a core", [[turn[part]] for turn in turns]))
            whole = [[sum(turn.values())] for turn in turns]
            results.add(Figure(f"a {named}: all", "ms of a core", whole, note="what bounds the rate on these cores"))


async def _cost(bench: Bench, system: System, engine: str, jobs: int) -> dict[str, float]:
    """Processor time of a job, by what it went to, in ms."""
    before = _spent(bench, system)
    await burst(system.http, engine, jobs)
    await asyncio.sleep(SETTLE_S)  # copies and seals are made after the jobs, and are a part of what they cost
    return {name: 1000 * (seconds - before[name]) / jobs for name, seconds in _spent(bench, system).items()}


def _spent(bench: Bench, system: System) -> dict[str, float]:
    worker = psutil.Process(system.installation.pid("worker"))
    parts = {
        "PostgreSQL": _family(bench.servers.postgres()),
        "RabbitMQ": _family(bench.servers.rabbit()),
        "worker": [worker],
        "engine processes": worker.children(recursive=True),
        "gateway": [system.gateway],
        "load generator": [psutil.Process()],
    }
    seconds = {name: sum(map(_seconds, processes)) for name, processes in parts.items()}
    ended = worker.cpu_times()  # of engine processes that made room for fresh ones
    seconds["engine processes"] += ended.children_user + ended.children_system
    return seconds


class Embedded(Row):
    """`phaseline up`: everything in one process on SQLite, engines in children."""

    async def measure(self, bench: Bench, results: Results) -> None:
        await bench.alone()
        async with bench.embedded() as (_, http):
            jobs = await rate(bench, http, "fivephase")
            shots = bench.size(100, 30)

            async def live() -> Sequence[float]:
                return await said_to_seen(http, shots)

            found = await in_turns(bench.repeats, {"rate": jobs, "live": live})
        results.add(
            Figure(
                "five-phase jobs", "jobs/s", found["rate"], note="over HTTP; SQLite with WAL and synchronous=FULL",
                reach=(Bound("p50", least=300),),
            )
        )  # fmt: skip
        results.add(
            Figure(
                "engine says → WebSocket", "ms", found["live"],
                note="from the engine's call, in its process, committed on the way, to a viewer in another",
                reach=(Bound("p50", most=5),),
            )
        )  # fmt: skip


async def said_to_seen(http: Api, shots: int) -> list[float]:
    """Milliseconds from an engine's call to the frame at a viewer, so many times."""
    job_id = await http.submit("saying", {"count": shots, "pause_s": 0.02})
    waits: list[float] = []
    address = f"{http.url.replace('http', 'ws', 1)}/api/v1/jobs/{job_id}/stream"
    async with asyncio.timeout(120), http.session.ws_connect(address) as socket:
        async for frame in socket:
            now = time.time_ns()
            event = frame.json()
            if event["type"] == "partial":
                waits.append((now - event["value"]["at_ns"]) / 1e6)
    return waits


async def start(http: Api) -> float:
    """Milliseconds from before a submit to the engine's first line."""
    sent = time.time_ns()
    job_id = await http.submit("noop", {})
    began: int = await followed(http, job_id)
    return (began - sent) / 1e6


async def rate(bench: Bench, http: Api, engine: str) -> Callable[[], Awaitable[Sequence[float]]]:
    """What measures how many jobs end a second, with enough of them for this machine."""
    jobs = await enough_jobs(bench, lambda count: burst(http, engine, count))

    async def measure() -> Sequence[float]:
        return [jobs / await burst(http, engine, jobs)]

    return measure


async def burst(http: Api, engine: str, jobs: int) -> float:
    """Seconds from the first submit of so many jobs to the last one's end."""
    left = iter(range(jobs))

    async def some() -> None:
        for _ in left:
            await http.submit(engine, {})

    began = time.monotonic()
    await asyncio.gather(*(some() for _ in range(SUBMITTING_MAX)))
    await finished(http, engine)
    return time.monotonic() - began


async def _events_of_one(system: System, engine: str) -> int:
    job_id = await system.http.submit(engine, {})
    await followed(system.http, job_id)
    return len(await system.http.events(job_id))


def _family(server: object) -> list[psutil.Process]:
    """The processes of a private server; none of one that is not ours."""
    if not isinstance(server, PrivatePostgres | PrivateRabbit):
        return []
    first = psutil.Process(server.pid)
    return [first, *first.children(recursive=True)]


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)

"""What it costs: appends against the driver, an idle system, and how costs change as the log grows."""

import asyncio
import random
import re
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import psutil

from benchmarks import floors, plot
from benchmarks.bench import DAY_S, Bench, Row, Writer, an_event, writer
from benchmarks.fill import fill_jobs, fill_streams
from benchmarks.measure import FLOOR, Bound, Figure, Results, in_turns, median
from events.log import PAGE_EVENTS_MAX
from phaseline import database
from phaseline.settings import Settings
from tests.builders import a_worker
from tests.servers import PrivatePostgres

JOBS = 100  # that writers append to
WRITERS = 300
BATCH = 100  # rows of a raw insert: about what the committer's batches grow to
READ_EVENTS = 20_000  # at least so many a turn
Operation = Callable[[], Awaitable[None]]
WAITING = "waits_in_the_log"  # an engine whose jobs are due in a filled log


class Append(Row):
    """Events a second through the committer, against raw inserts of the same rows."""

    async def measure(self, bench: Bench, results: Results) -> None:
        await bench.alone()
        seconds = bench.size(4, 1) / 2
        table_url = await asyncio.to_thread(bench.new_database)
        async with _log(bench) as (_, writing), floors.raw_table(table_url) as table:
            jobs = await writing.started(JOBS)

            async def loaded(said: int) -> Sequence[float]:
                end, count = time.monotonic() + seconds, 0

                async def write(number: int) -> None:
                    nonlocal count
                    while time.monotonic() < end:
                        await writing.say(jobs[number % JOBS], *(an_event(n) for n in range(said)))
                        count += said

                began = time.monotonic()
                await asyncio.gather(*(write(number) for number in range(WRITERS)))
                return [count / (time.monotonic() - began)]

            async def single() -> Sequence[float]:
                waits, end = [], time.monotonic() + seconds
                while time.monotonic() < end:
                    began = time.perf_counter_ns()
                    await writing.say(jobs[0], an_event(1))
                    waits.append((time.perf_counter_ns() - began) / 1e6)
                return waits

            async def insert_one() -> Sequence[float]:
                waits, end = [], time.monotonic() + seconds
                while time.monotonic() < end:
                    began = time.perf_counter_ns()
                    await table.insert(1)
                    waits.append((time.perf_counter_ns() - began) / 1e6)
                return waits

            found = await in_turns(
                bench.repeats,
                {
                    "floor": lambda: table.rate(seconds, BATCH),
                    "one_each": lambda: loaded(1),
                    "ten_each": lambda: loaded(10),
                    "insert": insert_one,
                    "single": single,
                },
            )
        raw = f"raw inserts by {BATCH}"
        note = "asyncpg, one statement and one commit a batch, one connection; same columns, one index, fsync on"
        results.add(Figure(raw, "events/s", found["floor"], FLOOR, note))
        results.add(
            Figure(
                "append, 10 events a command", "events/s", found["ten_each"], against=(raw,),
                note=f"{WRITERS} writers over {JOBS} jobs, as engines that say much; locked, decided, fenced, announced",
                reach=(Bound("ratio", least=0.5, to=raw),),
            )
        )  # fmt: skip
        results.add(
            Figure(
                "append, 1 event a command", "events/s", found["one_each"], against=(raw,),
                note=f"{WRITERS} writers over {JOBS} jobs, each waits for its commit", reach=(Bound("ratio", least=0.5, to=raw),),
            )
        )  # fmt: skip
        results.add(Figure("raw insert of one row", "ms", found["insert"], FLOOR, "asyncpg, one row, one commit"))
        results.add(
            Figure("append alone", "ms", found["single"], note="one writer, idle system", against=("raw insert of one row",))
        )  # fmt: skip


class Quiet(Row):
    """An idle system: one gateway, one worker, nothing to do."""

    async def measure(self, bench: Bench, results: Results) -> None:
        await bench.alone()
        window_s = bench.size(15, 5)
        async with bench.system() as system:
            statements: list[list[float]] = []
            shares: list[list[float]] = []
            processes = {name: psutil.Process(system.installation.pid(name)) for name in system.installation.commands}
            children = [child for child in system.installation.children("worker") if _is_engine(child)]
            async with _statement_log(bench.servers.postgres(), str(system.settings.database_url)) as log:
                for _ in range(bench.repeats):
                    before, seen = _used([*processes.values(), *children]), log.count()
                    await asyncio.sleep(window_s)
                    statements.append([(log.count() - seen) / window_s])
                    shares.append([100 * (_used([*processes.values(), *children]) - before) / window_s])
            own = log.words
            memory = {name: process.memory_info().rss / 2**20 for name, process in processes.items()}
            engine = max((child.memory_info().rss / 2**20 for child in children), default=0.0)
        results.add(
            Figure(
                "statements", "/s", statements, reach=(Bound("p50", most=5),),
                note=f"all that PostgreSQL logged of gateway and worker; {own}",
            )
        )  # fmt: skip
        results.add(
            Figure(
                "processor", "% of a core", shares, reach=(Bound("p50", most=1.5),),
                note="gateway, worker and its engine processes together",
            )
        )  # fmt: skip
        for name, mib in memory.items():
            results.add(
                Figure(f"memory of the {name}", "MiB", [[mib]], reach=(Bound("p50", most=90),), note="RSS, after a few jobs")
            )  # fmt: skip
        results.add(Figure("memory of an engine process", "MiB", [[engine]], note="RSS; the engine here does nothing"))


class EventsCurve(Row):
    """How costs change while one job's stream grows."""

    async def measure(self, bench: Bench, results: Results) -> None:
        await bench.alone()
        sizes = [10, 100, 1000, 10_000] if bench.quick else [10, 100, 1000, 10_000, 100_000]
        async with _log(bench) as (url, writing):
            streams = {size: await fill_streams(writing, url, 2, size) for size in sizes}
            grown = {}
            for size in sizes:
                (claimed,) = await writing.started(1)
                await writing.say_many(claimed, size - 2, at_once=200)
                grown[size] = claimed

            def measures(size: int) -> dict[str, Operation]:
                async def append() -> None:
                    await writing.say(grown[size], an_event(1))

                async def head() -> None:
                    await writing.log.head(streams[size][0])

                async def page() -> None:
                    await writing.log.read(streams[size][0], size - 10)

                return {"append": append, "head check": head, "read of the last 10": page}

            found = await _costs(bench, {size: measures(size) for size in sizes}, times=bench.size(200, 30))
            reads = await in_turns(
                bench.repeats,
                {str(size): _whole(writing, streams[size], size) for size in sizes if size >= PAGE_EVENTS_MAX},
            )
        found["replay per event, in µs"] = {int(size): [[v[0]] for v in values] for size, values in reads.items()}
        _report(bench, results, found, "events in the job", "curve-events.svg", "Costs while one job's stream grows")


class JobsCurve(Row):
    """How costs change with the jobs a log holds: a database for each size, measured in turns."""

    async def measure(self, bench: Bench, results: Results) -> None:
        await bench.alone()
        sizes = [1000, 10_000] if bench.quick else [1000, 10_000, 100_000, 1_000_000]
        claims = bench.size(60, 20)  # a turn: each takes a due job away
        async with AsyncExitStack() as stack:
            measures, url = {}, ""
            for size in sizes:
                url, writing = await stack.enter_async_context(_log(bench))
                queued = (claims + 1) * bench.repeats
                ids = await fill_jobs(writing, url, size, queued=queued, engine=WAITING)
                measures[size] = await self._operations(writing, ids[: size - queued])
            found = await _costs(bench, measures, times=claims)
            disk = await _disk(url)
        _report(bench, results, found, "jobs in the log", "curve-jobs.svg", "Costs while the log fills with jobs")

        for name, value in disk.items():
            results.add(Figure(name, "bytes", [[value]], note="with its indexes, in the largest of these logs"))

    async def _operations(self, writing: Writer, finished: Sequence[str]) -> dict[str, Operation]:
        (claimed,) = await writing.started(1)
        worker, dice = a_worker("claims", WAITING), random.Random(1)
        await writing.log.beat(worker, DAY_S)

        async def append() -> None:
            await writing.say(claimed, an_event(1))

        async def claim() -> None:
            assert len(await writing.committer.claim("claims", worker.engines, 1, idle=True)) == 1

        async def head() -> None:
            await writing.log.head(dice.choice(finished))

        async def replay() -> None:
            await writing.log.read(dice.choice(finished), 0)

        return {"append": append, "claim": claim, "head check": head, "replay of a job": replay}


async def _costs(
    bench: Bench, measures: Mapping[int, Mapping[str, Operation]], *, times: int
) -> dict[str, dict[int, list[Sequence[float]]]]:
    """How many ms each operation takes at each size, in turns."""

    def timed(operation: Operation) -> Callable[[], Awaitable[Sequence[float]]]:
        async def measure() -> Sequence[float]:
            await operation()
            waits = []
            for _ in range(times):
                began = time.perf_counter_ns()
                await operation()
                waits.append((time.perf_counter_ns() - began) / 1e6)
            return waits

        return measure

    turns = {(name, size): timed(work) for size, named in measures.items() for name, work in named.items()}
    found = await in_turns(bench.repeats, {f"{size} {name}": measure for (name, size), measure in turns.items()})
    costs: dict[str, dict[int, list[Sequence[float]]]] = {}
    for name, size in turns:
        costs.setdefault(name, {})[size] = found[f"{size} {name}"]
    return costs


async def _disk(url: str) -> dict[str, float]:
    connection: Any = await asyncpg.connect(url)
    try:
        jobs, per_job = await connection.fetchrow("SELECT count(*), pg_total_relation_size('jobs') FROM jobs")
        events = await connection.fetchval("SELECT count(*) FROM events")
        size = await connection.fetchval(
            "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'events'::regclass"
        )
    finally:
        await connection.close()
    return {"disk of an event": float(size) / events, "disk of a job's row": float(per_job) / jobs}


def _whole(writing: Writer, streams: Sequence[str], events: int) -> Callable[[], Awaitable[Sequence[float]]]:
    """How many µs an event takes: whole streams read page by page up to their head, as a replay does."""

    async def measure() -> Sequence[float]:
        began, count = time.perf_counter_ns(), 0
        for job_id in [*streams] * max(READ_EVENTS // (events * len(streams)), 1):
            after = 0
            while after < events:
                page = await writing.log.read(job_id, after)
                after, count = page[-1].seq, count + len(page)
        return [(time.perf_counter_ns() - began) / count / 1000]

    return measure


def _report(
    bench: Bench,
    results: Results,
    found: dict[str, dict[int, list[Sequence[float]]]],
    sizes: str,
    file: str,
    title: str,
) -> None:
    lines: dict[str, tuple[str, plot.Curve]] = {}
    for name, costs in found.items():
        unit = "µs" if name.endswith("in µs") else "ms"
        short = name.partition(", in")[0]
        curve = [(size, median([v for repeat in repeats for v in repeat])) for size, repeats in sorted(costs.items())]
        lines[short] = (unit, curve)
        for size, repeats in sorted(costs.items()):
            results.add(Figure(f"{short}, {size:,} {sizes}", unit, repeats))
        results.add(
            Figure(
                f"{short}: spread", "% around its middle", [[100 * plot.flatness(curve)]],
                reach=(Bound("p50", most=100 * plot.FLAT),), note=f"the medians of all {len(curve)} sizes lie within ± this",
            )
        )  # fmt: skip
    bench.plots[file] = plot.curves(title, sizes, lines)


class _StatementLog:
    """Counts the statements a private PostgreSQL logged of one database."""

    def __init__(self, server: PrivatePostgres, name: str) -> None:
        self._path = server.folder / "output"
        self._name = name
        self.words = ""

    def count(self) -> int:
        """How many so far; `words` says what they are."""
        lines = re.findall(
            rf"^{self._name} LOG:  (?:statement|execute [^:]*): *(\w+)",
            self._path.read_text(errors="replace"),
            re.MULTILINE,
        )
        transaction = sum(line in {"BEGIN", "COMMIT", "ROLLBACK"} for line in lines)
        self.words = f"{transaction / max(len(lines), 1):.0%} of them BEGIN, COMMIT or ROLLBACK"
        return len(lines)


@asynccontextmanager
async def _statement_log(server: object, url: str) -> AsyncIterator[_StatementLog]:
    """PostgreSQL logs every statement for the block."""
    if not isinstance(server, PrivatePostgres):
        raise TypeError("statements are counted in the log of a private PostgreSQL only")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("ALTER SYSTEM SET log_line_prefix = '%d '")
        await connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        await connection.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(1)  # every backend reads it before its next statement
        yield _StatementLog(server, urllib.parse.urlsplit(url).path[1:])
    finally:
        await connection.execute("ALTER SYSTEM RESET ALL")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()


@asynccontextmanager
async def _log(bench: Bench) -> AsyncIterator[tuple[str, Writer]]:
    """A writer on a fresh database and vhost, and the database's URL."""
    url, rabbit_url = await asyncio.to_thread(bench.new_database), await asyncio.to_thread(bench.new_vhost)
    settings = Settings(database_url=url, rabbitmq_url=rabbit_url, data_dir=bench.folder)
    await database.migrate(settings)
    async with writer(settings) as writing:
        yield url, writing


def _used(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def _is_engine(process: psutil.Process) -> bool:
    return "engine_worker.child" in " ".join(process.cmdline())

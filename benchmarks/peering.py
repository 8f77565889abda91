"""Peers: other people's systems in the same run, on the same servers, each used as its own documentation advises.

A peer is a program in `benchmarks/peers/`, run in a virtual environment of its own (`benchmarks/peers/requirements.lock`)
or by node. It answers commands as the crowd does; its worker processes are its children. Between its turns the whole
group is frozen, so that what it polls meanwhile costs nobody else's figures. A peer that cannot be had is a line in the
table that says why.
"""

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from benchmarks.asked import Asked, Failed, asked
from benchmarks.bench import Bench
from benchmarks.measure import Figure, Results
from tests.servers import installed

FOLDER = Path(__file__).with_name("peers")
TURN_S, QUICK_TURN_S = 2.5, 0.8  # what one turn of a rate should take
QUICK_PEERS = {"celery", "dbos", "taskiq"}  # a quick run is about ours
FIRST_JOBS, JOBS_MAX = 60, 8000

Measure = Callable[[], Awaitable[Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who it is, and for each kind of measurement what of it is persisted and what is not."""

    name: str
    title: str
    notes: Mapping[str, str]
    node: bool = False


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "celery",
            "Celery",
            {
                "start": "classic queue, durable, confirms; acked before the work; result row in Postgres",
                "noop": "result row in Postgres; no events, no history; acked early: a killed worker loses the job",
                "fivephase": "update_state: one row, overwritten; only the last state is kept, nobody is told",
            },
        ),
        Peer(
            "taskiq",
            "taskiq-aio-pika",
            {
                "start": "quorum queue, confirms; no result backend: nothing but the message is persisted",
                "noop": "the message only: no state, no result, nothing to query; acked after the work",
            },
        ),
        Peer(
            "dramatiq",
            "dramatiq",
            {
                "start": "durable queue, confirms; no result backend: nothing but the message is persisted",
                "noop": "the message only: no state, no result, nothing to query; acked after the work",
            },
        ),
        Peer(
            "procrastinate",
            "procrastinate",
            {
                "start": "job row in Postgres, woken by LISTEN/NOTIFY",
                "noop": "job row and an event row a change of status in Postgres; no result, no progress",
            },
        ),
        Peer(
            "pgqueuer",
            "PgQueuer",
            {
                "start": "job row in Postgres, woken by LISTEN/NOTIFY",
                "noop": "job row and a log row a change of status in Postgres; no result, no progress",
            },
        ),
        Peer(
            "dbos",
            "DBOS",
            {
                "start": "workflow row in Postgres; queues are polled, once a second by default",
                "noop": "workflow row with input and output in Postgres; no events",
                "fivephase": "five steps, each output a row in Postgres; nobody is told: a viewer would poll",
                "live": "write_stream: each value a row in Postgres; read_stream follows it",
                "replay": "read_stream of a workflow's values, from the start",
            },
        ),
        Peer(
            "restate",
            "Restate",
            {
                "start": "journal in Restate's own log and RocksDB, one node",
                "noop": "invocation in Restate's own log, one node; output kept a day; state by its own SQL",
                "fivephase": "five journaled ctx.run steps; nobody is told: a viewer would poll",
            },
        ),
        Peer(
            "socketio",
            "Socket.IO",
            {
                "live": "a Redis stream of 10,000 packets, synced at each write here; recovery within 2 minutes of a break"
            },
            node=True,
        ),
    )
}


@dataclass
class _Running:
    """A peer that is up, or why it is not."""

    peer: Peer
    process: Asked | None = None
    failed: str = ""
    jobs: dict[str, int] = field(default_factory=dict)  # kind -> how many make a turn


class Peers:
    """The named peers, started for the block and frozen between their turns."""

    def __init__(self, bench: Bench, *names: str) -> None:
        self._bench = bench
        self._all = [_Running(PEERS[name]) for name in names if name in QUICK_PEERS or not bench.quick]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(self._start(one) for one in self._all))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def measures(self, kind: str, **more: Any) -> dict[str, Measure]:
        """For `in_turns`: one measure for each peer that can do this."""
        return {one.peer.name: self._measure(one, kind, more) for one in self._all if kind in one.peer.notes}

    def report(
        self,
        results: Results,
        kind: str,
        name: str,
        unit: str,
        found: Mapping[str, Sequence[Sequence[float]]],
    ) -> None:
        """Adds a figure for each of them, measured or not."""
        for one in self._all:
            if kind in one.peer.notes:
                repeats = [repeat for repeat in found.get(one.peer.name, ()) if repeat]
                results.add(
                    Figure(
                        name,
                        unit,
                        () if one.failed else repeats,
                        who=one.peer.title,
                        note=one.peer.notes[kind],
                        failed=one.failed,
                    )
                )

    def titles(self, kind: str) -> tuple[str, ...]:
        """Whom a figure of ours is held against."""
        return tuple(one.peer.title for one in self._all if kind in one.peer.notes)

    def _measure(self, one: _Running, kind: str, more: Mapping[str, Any]) -> Measure:
        async def measure() -> Sequence[float]:
            if one.process is None or one.failed:
                return []
            one.process.thaw()
            try:
                return await self._turn(one, one.process, kind, more)
            except Failed as failure:
                one.failed = str(failure)[:200]
                return []
            finally:
                one.process.freeze()

        return measure

    async def _turn(self, one: _Running, process: Asked, kind: str, more: Mapping[str, Any]) -> Sequence[float]:
        if kind in {"noop", "fivephase"}:
            if kind not in one.jobs:
                one.jobs[kind] = await enough_jobs(self._bench, partial(_burst, process, kind))
            jobs = one.jobs[kind]
            return [jobs / await _burst(process, kind, jobs)]
        values: list[float] = (await process.ask(kind, **more))["values"]
        return values

    async def _start(self, one: _Running) -> None:
        try:
            process = await self._stack.enter_async_context(
                asked(
                    await asyncio.to_thread(_command, one.peer),
                    self._bench.folder / f"{one.peer.name}.log",
                    await self._environment(),
                )
            )
            await process.ask("open")
            process.freeze()
            one.process = process
        except (Failed, OSError) as failure:
            one.failed = str(failure)[:200]

    async def _environment(self) -> dict[str, str]:
        return {
            "BENCH_DATABASE_URL": await asyncio.to_thread(self._bench.new_database),
            "BENCH_RABBITMQ_URL": await asyncio.to_thread(self._bench.new_vhost),
            "BENCH_FOLDER": str(self._bench.folder),
            "PYTHONPATH": str(FOLDER.parents[1]),
            "PYTHONUNBUFFERED": "1",
        }


async def _burst(process: Asked, kind: str, jobs: int) -> float:
    seconds: float = (await process.ask("burst", kind=kind, jobs=jobs))["seconds"]
    return seconds


async def enough_jobs(bench: Bench, burst: Callable[[int], Awaitable[float]]) -> int:
    """How many jobs make a turn: more and more are run, not counted, until they take long enough."""
    jobs, wanted_s = FIRST_JOBS, bench.size(1, 0) * TURN_S or QUICK_TURN_S
    while (seconds := await burst(jobs)) < wanted_s / 2 and jobs < JOBS_MAX:
        jobs = min(jobs * 2, JOBS_MAX)
    return max(int(jobs / seconds * wanted_s), FIRST_JOBS)


def python() -> Path:
    """The interpreter of the peers' own virtual environment."""
    return Path(sys.prefix).with_name(Path(sys.prefix).name + "-peers") / "bin" / "python"


def _command(peer: Peer) -> list[str]:
    if peer.node:
        if installed(lambda: Path(found) if (found := shutil.which("redis-server")) else None, "redis-server") is None:
            raise Failed("redis-server is not installed")
        node = shutil.which("node")
        if node is None or not (FOLDER / "node_modules").exists():
            raise Failed("node, or its packages, are not installed")
        return [node, str(FOLDER / f"{peer.name}.mjs")]
    if not python().exists():
        raise Failed("the peers' own virtual environment is missing (`make peers`)")
    return [str(python()), "-m", f"benchmarks.peers.{peer.name}"]

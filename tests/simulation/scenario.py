"""One seed from its first boot to its verdict."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from events.catalog import FINAL
from tests.simulation.clients import Asked, Clients, Memory
from tests.simulation.judge import COPY_S, copied, judge
from tests.simulation.line import Server
from tests.simulation.loop import Stuck
from tests.simulation.nemesis import Nemesis
from tests.simulation.world import CONCURRENT, Node, World

SETTLE_S = 240.0  # after everything is healed: takeovers, backoffs and timeouts of what was begun
TAKEOVER_S = 10.0  # from the fault to the next `started`, with default leases, a free slot and a database that answers
STOP_S = 30.0  # grace of a drain and the deadlines after it
PLANS = ("calm",) * 8 + ("flaky", "flaky", "doomed", "hang", "killed", "poison", "deaf", "large")


@dataclass
class Outcome:
    """What one seed did and found."""

    seed: int
    digest: str = ""
    violations: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    virtual_s: float = 0.0
    real_s: float = 0.0
    steps: int = 0
    jobs: int = 0
    events: int = 0
    transactions: int = 0
    rollbacks: int = 0
    requests: int = 0
    connections: int = 0
    frames: int = 0
    boots: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    takeover_s: float | None = None
    gaps_s: list[float] = field(default_factory=list)


def simulate(seed: int) -> Outcome:
    """Runs one seed, in a process of its own: see `machine`."""
    began = time.perf_counter()
    world = World(seed)
    memory = Memory()
    scenario = Scenario(world, memory)
    try:
        world.run(scenario.run())
    except Stuck as stuck:
        world.wrong(str(stuck))
    world.problems()
    world.note(f"the end, after {world.loop.steps} steps")
    return Outcome(
        seed,
        world.digest,
        world.violations,
        world.trace,
        world.now,
        time.perf_counter() - began,
        world.loop.steps,
        len(world.database.rows),
        sum(map(len, world.database.events.values())),
        world.database.commits,
        world.database.rollbacks,
        memory.requests,
        memory.connections,
        memory.frames,
        sum(node.boots for node in world.nodes),
        world.faults,
        scenario.takeover_s,
        memory.gaps_s,
    )


class Scenario:
    """Load and faults, healing, settling, one trial with a known answer, a peaceful end."""

    def __init__(self, world: World, memory: Memory) -> None:
        self.world = world
        self.memory = memory
        self.rng = random.Random(f"{world.seed} scenario")
        self.takeover_s: float | None = None
        self._clients = Clients(world, memory)
        self._number = 0
        self._busy = 0  # people who still want something

    async def run(self) -> None:
        """The whole of it."""
        try:
            await self._load_and_faults()
        except* _Over:
            self.world.note("everybody goes home")
        if self.world.violations:
            return
        await self._trial()
        await self._within(COPY_S, "the copy is complete", lambda: copied(self.world))
        await judge(self.world, self.memory)
        await self._stop()

    async def _load_and_faults(self) -> None:
        world, rng = self.world, self.rng
        for number in range(rng.randint(1, 3)):
            world.add(f"w{number}", "worker")
        for number in range(rng.randint(1, 2)):
            world.add(f"g{number}", "gateway")
        for node in world.nodes:
            world.boot(node)
        nemesis = Nemesis(world)
        rage_s = rng.uniform(6.0, 24.0)
        async with asyncio.TaskGroup() as people:
            for _ in range(rng.randint(2, 7)):
                self._begin(people, self._person(people, rng.uniform(0.0, rage_s * 0.8)))
            for _ in range(rng.randint(0, 5)):
                self._begin(people, self._meddler(rng.uniform(1.0, rage_s)))
            await nemesis.rage(rage_s)
            self._clients.stopping = True
            await self._within(SETTLE_S, "everybody has an answer and every job an end", self._settled)
            if world.violations:
                raise _Over

    # -- people

    async def _person(self, people: asyncio.TaskGroup, after_s: float) -> None:
        await asyncio.sleep(after_s)
        asked = self._wanted()
        await self._clients.submit(asked)
        if asked.job_id:
            for _ in range(self.rng.choice((0, 1, 1, 2))):
                self._begin(people, self._viewer(asked.job_id, self.rng.choice((0.0, 0.0, self.rng.uniform(0, 10)))))

    def _begin(self, people: asyncio.TaskGroup, wish: Coroutine[None, None, None]) -> None:
        async def granted() -> None:
            await wish
            self._busy -= 1

        self._busy += 1
        people.create_task(granted())

    async def _viewer(self, job_id: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self._clients.watch(job_id)

    async def _meddler(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if self.memory.acknowledged and not self._clients.stopping:
            await self._clients.wish()

    def _wanted(self, **params: object) -> Asked:
        rng = self.rng
        self._number += 1
        plan = rng.choice(PLANS)
        wanted = {"plan": plan, "steps": rng.randint(1, 5), "step_s": rng.choice((0.2, 0.6, 2.0))}
        if rng.random() < 0.1:
            wanted["bytes"] = rng.choice((50_000, 120_000))  # beyond 64 KiB an event travels as a reference
        timeouts: dict[str, float] = {}
        if plan == "hang":
            timeouts = rng.choice(({"attempt_s": 8.0}, {"stall_s": 4.0}, {"total_s": 12.0}))
        elif rng.random() < 0.2:
            timeouts = rng.choice(({"total_s": 15.0}, {"start_s": 5.0}, {"attempt_s": 20.0}))
        mark = f"m{self._number}"
        body = {
            "engine": "scripted",
            "params": wanted | params,
            "tags": [mark],
            "priority": rng.choice(("low", "normal", "high")),
            "timeouts": {"attempt_s": 60.0} | timeouts,
            "max_attempts": rng.choice((1, 2, 3)),
        }
        if rng.random() < 0.2:
            body |= {"unique_key": rng.choice("abc"), "unique_mode": "replace"}
        if rng.random() < 0.25:
            body["concurrency"] = {"key": rng.choice("xy"), "limit": CONCURRENT}
        return Asked(mark, body, f"key {mark}" if rng.random() < 0.7 else None)

    # -- ends

    def _settled(self) -> bool:
        jobs = [row.job for row in self.world.database.rows.values()]
        return all(job.status in FINAL for job in jobs) and not self._busy

    async def _within(self, seconds: float, what: str, true: Callable[[], bool]) -> None:
        end = self.world.now + seconds
        while not true():
            if self.world.now > end:
                unfinished = [
                    f"{row.job.id[-4:]}:{row.job.status}"
                    for row in self.world.database.rows.values()
                    if row.job.status not in FINAL
                ]
                self.world.wrong(f"not within {seconds:g} s of virtual time: {what}; unfinished jobs {unfinished}")
                return
            await asyncio.sleep(0.25)

    async def _trial(self) -> None:
        """With everything calm a worker runs one long job; then one thing goes wrong, and it is known what must follow."""
        workers = [node for node in self.world.nodes if node.name.startswith("w")]
        kinds = (
            ("takeover", "takeover", "outage", "no bus", "none", "none")
            if len(workers) > 1
            else ("outage", "none", "none")
        )
        kind = self.rng.choice(kinds)
        if kind == "none":
            return
        await asyncio.sleep(self.world.settings.lease_s + 3.0)  # everybody's pulse is steady again
        asked = self._wanted(plan="calm", steps=60, step_s=2.0, bytes=1)
        asked.body |= {"max_attempts": 3, "timeouts": {"attempt_s": None}}
        asked.key = f"key {asked.mark}"
        await self._clients.submit(asked)
        job_id = asked.job_id
        assert job_id
        await self._within(15.0, "an idle worker starts a job", lambda: self._status(job_id) == "running")
        name = self.world.workers.get(self.world.database.rows[job_id].job.worker_id or "")
        holder = next((node for node in workers if node.process.name == name), None)
        if holder is not None:
            await asyncio.sleep(self.rng.uniform(0.0, 3.0))
            await (self._takeover(holder, job_id) if kind == "takeover" else self._kept(kind, holder, job_id))
        await self._cancel(job_id)

    async def _takeover(self, holder: Node, job_id: str) -> None:
        """Its worker dies, freezes or is cut off: another one with a free slot has the job soon."""
        world = self.world
        how = self.rng.choice(("kill", "machine", "freeze", "cut"))
        world.fault(f"takeover {how}", f"{holder.process} runs {job_id[-4:]}")
        at, attempt = world.now, self._attempt(job_id)
        match how:
            case "kill":
                world.kill(holder)
            case "machine":
                world.kill(holder, silently=True)
            case "freeze":
                world.freeze(holder, 40.0)
            case _:
                holder.database_line.cut = True
        await self._within(TAKEOVER_S, "another worker has the job", lambda: self._attempt(job_id) > attempt)
        self.takeover_s = world.now - at
        holder.database_line.heal()
        await self._within(60.0, "the worker is back", lambda: holder.up)

    async def _kept(self, kind: str, holder: Node, job_id: str) -> None:
        """Servers go away and everybody lives: no job changes hands."""
        world = self.world
        attempt = self._attempt(job_id)
        if kind == "outage":
            seconds = self.rng.uniform(0.5, 0.9) * world.settings.outage_grace_s
            world.fault("trial outage", f"of the database for {seconds:.2f} s")
            server: Server = world.database
        else:
            seconds = self.rng.uniform(5.0, 15.0)
            world.fault("trial no bus", f"for {seconds:.2f} s")
            server = world.broker
        if self.rng.random() < 0.5:
            server.crash()
            await asyncio.sleep(seconds)
            server.restart()
        else:
            server.freeze()
            await asyncio.sleep(seconds)
            server.thaw()
        await asyncio.sleep(2 * world.settings.lease_s)
        if self._attempt(job_id) != attempt or self._status(job_id) == "queued":
            told = [row.type for row in world.database.events[job_id]]
            world.wrong(f"{holder.process} lived through {kind} and lost its job: {told[-8:]}")

    async def _cancel(self, job_id: str) -> None:
        while self._status(job_id) not in FINAL:
            try:
                await self._clients.call("POST", f"/api/v1/jobs/{job_id}/cancel", {"mode": "force"})
            except Exception as away:  # a gateway that was lost, or none
                self.world.note(f"client cannot cancel: {away!r}")
            await asyncio.sleep(0.5)

    def _status(self, job_id: str) -> str:
        return self.world.database.rows[job_id].job.status

    def _attempt(self, job_id: str) -> int:
        return self.world.database.rows[job_id].job.attempt

    async def _stop(self) -> None:
        """SIGTERM to everyone; each ends within its grace and leaves nothing behind."""
        for node in self.world.nodes:
            node.stay_down = True
            if node.process.alive:
                self.world.terminate(node)
        await self._within(
            STOP_S + self.world.settings.drain_s,
            "every process ended after SIGTERM",
            lambda: not any(node.process.alive for node in self.world.nodes),
        )


class _Over(Exception):
    """The run is over: something is wrong already, and waiting on would hide it in a long schedule."""

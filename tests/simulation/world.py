"""One simulated installation: servers, gateways, workers and what happens to them, all drawn from one seed."""

import asyncio
import contextvars
import hashlib
import logging
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import BaseModel

from engine_worker.process import ChildProcess
from events import crash_points
from events.bus import Bus
from events.declaration import engine
from events.log import Log
from gateway.peers import PeersSite
from phaseline import compose, signals
from phaseline.settings import Settings
from tests.simulation import machine
from tests.simulation.bus import Broker, SimBus
from tests.simulation.children import PHASES, Engine, start
from tests.simulation.line import Line
from tests.simulation.log import SimLog
from tests.simulation.loop import OUTSIDE, PROCESS, START_S, WORLD, Process, SimLoop
from tests.simulation.store import Database, Tx
from tests.simulation.wire import ClientSide, Port, Refused

WALL_MS = 1_764_000_000_000  # the database's clock at the start
RESTART_S = (0.3, 4.0)
TRACE_MAX = 4000
CONCURRENT = 2  # jobs with one concurrency key that may run at once
SILENCE_S = 12.0  # until the others notice a machine that is gone, and another takes its place


class Params(BaseModel):
    """What the scripted engine is told: see `children.Engine`."""

    plan: str = "calm"
    steps: int = 3
    step_s: float = 0.5
    bytes: int = 60


@engine("scripted", version=1, phases=PHASES)
def scripted(params: Params, context: Any) -> Any:
    """Never called: its children are simulated."""
    raise NotImplementedError


class Violation(Exception):
    """Something that must hold does not."""


@dataclass(eq=False)
class Node:
    """A process that is started again whenever it ends, until `stay_down`."""

    name: str
    main: Callable[[], Coroutine[Any, Any, None]]
    process: Process = field(default_factory=lambda: Process("none"))
    boots: int = 0
    skew_ms: int = 0
    database_line: Line = field(default_factory=Line)
    bus_line: Line = field(default_factory=Line)
    bus: SimBus | None = None
    children: list[Engine] = field(default_factory=list)
    stay_down: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def up(self) -> bool:
        """Runs, and is not frozen."""
        return self.process.alive and not self.process.frozen


class World:
    """Owns the loop. `run` simulates one seed; what is wrong is in `violations`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(f"{seed} world")
        self.net = random.Random(f"{seed} net")
        self.loop = SimLoop(random.Random(f"{seed} order"))  # type: ignore[abstract]  # no sockets, no threads
        self.database = Database(self.database_ms)
        self.broker = Broker()
        self.nodes: list[Node] = []
        self.ports: dict[str, Port] = {}
        self.violations: list[str] = []
        self.trace: list[str] = []
        self.workers: dict[str, str] = {}  # which process a worker's id means
        self.faults: dict[str, int] = {}
        self.clock_step_ms = 0
        self.armed: dict[Process, int] = {}  # crash points until death
        self.freeze_at_strike: dict[Process, float] = {}
        self.delay_s = (0.0005, self.rng.choice((0.003, 0.01, 0.04)))
        self.settings = self._settings()
        self.connections: list[ClientSide] = []
        self.started: list[Process] = []  # kept: what is left of the dead must not be wound up by the collector
        self._pids = 0
        self._digest = hashlib.sha256()
        self._by_process: dict[Process, Node] = {}

    def _settings(self) -> Settings:
        # Every second seed runs on short leases: more takeovers, and other proportions between the periods.
        short = self.rng.random() < 0.5
        times = {"lease_s": 2.0, "beat_s": 0.5, "sweep_s": 0.5, "leader_s": 1.5, "outage_grace_s": 8.0, "drain_s": 5.0}
        return Settings(
            database_url="postgresql://simulated", rabbitmq_url="amqp://simulated",
            webhook_places=0,  # what goes out of the installation is not simulated
            slots=self.rng.choice((1, 2, 3)), **(times if short else {"drain_s": 10.0}),  # type: ignore[arg-type]
        )  # fmt: skip

    # -- time and the record

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.loop.time() - START_S

    def database_ms(self) -> int:
        """The database's clock."""
        return WALL_MS + int(self.now * 1000) + self.clock_step_ms

    def note(self, text: str) -> None:
        """A line of the schedule."""
        line = f"{self.now:10.4f}  {text}"
        self._digest.update(line.encode())
        self.trace.append(line)
        if len(self.trace) > TRACE_MAX:
            del self.trace[: TRACE_MAX // 4]

    def fault(self, kind: str, text: str) -> None:
        """Counts and notes one."""
        self.faults[kind] = self.faults.get(kind, 0) + 1
        self.note(f"FAULT {kind}: {text}")

    def wrong(self, what: str) -> None:
        """Something that must hold does not."""
        self.note(f"VIOLATION {what}")
        self.violations.append(f"at {self.now:.4f} s: {what}")

    @property
    def digest(self) -> str:
        """Hash of everything noted: equal for equal runs."""
        return self._digest.hexdigest()[:16]

    # -- running

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Simulates until `main` is done."""
        machine.simulate(
            self.seed,
            now_ms=self._wall_ms,
            make_log=self._make_log,
            make_bus=self._make_bus,
            bind=self._bind,
            unbind=self._unbind,
            start_child=self._start_child,
            engines={"scripted": scripted},
        )
        self.loop.on_strike = self._strike
        self.database.on_commit = self._committed
        crash_points.on_reached = self._reached
        root = logging.getLogger()
        root.handlers = [_Listener(self)]
        root.setLevel(logging.WARNING)
        self.loop.run_until_complete(main)

    def later(self, delay_s: float, call: Callable[..., Any], *args: Any) -> None:
        """As the world."""
        self.loop.call_later(delay_s, call, *args, context=OUTSIDE)

    def _wall_ms(self) -> int:
        node = self._by_process.get(PROCESS.get())
        return WALL_MS + int(self.now * 1000) + (node.skew_ms if node else 0)

    def _make_log(self) -> Log:
        return SimLog(self.database, self._node().database_line)

    def _make_bus(self) -> Bus:
        node = self._node()
        node.bus = SimBus(self.broker, node.bus_line)
        return node.bus

    def _node(self) -> Node:
        return self._by_process[PROCESS.get()]

    def _bind(self, site: PeersSite) -> None:
        node = self._node()
        self.ports[node.name] = Port(node.process, site.peer, contextvars.copy_context())

    def _unbind(self) -> None:
        self.ports[self._node().name].open = False

    async def _start_child(self, setup: dict[str, Any]) -> ChildProcess:
        node = self._node()
        self._pids += 1

        def made(child: Engine) -> None:
            child.on_poison = self._poisoned
            self.started.append(child.process)
            node.children = [one for one in node.children if one.process.alive] + [child]

        return await start(self.loop, self._pids, self.net, made, setup)

    def _poisoned(self, parent: Process) -> None:
        node = self._by_process.get(parent)
        if node and node.process is parent and parent.alive:
            self.fault("poison", f"{parent} is taken down by its engine")
            self.kill(node)

    # -- nodes

    def add(self, name: str, kind: str) -> Node:
        """A gateway or a worker; it is started by `boot`."""
        main = (
            partial(compose._gateway, self.settings, lambda _: None)
            if kind == "gateway"
            else partial(compose._worker, self.settings)
        )
        node = Node(name, main, skew_ms=self.rng.choice((0, 0, self.rng.randint(-3000, 3000))))
        self.nodes.append(node)
        return node

    def boot(self, node: Node) -> None:
        """Starts the process, on fresh connections."""
        node.boots += 1
        node.process = Process(f"{node.name}#{node.boots}")
        node.database_line = self._line(node.database_line, node.process)
        node.bus_line = self._line(node.bus_line, node.process)
        node.children = []
        self._by_process[node.process] = node
        self.started.append(node.process)
        self.note(f"{node.process} starts")
        task = self.loop.spawn(node.process, signals.ended_in_peace(node.main()))
        context = contextvars.Context()
        task.add_done_callback(partial(self._main_ended, node, node.process), context=context)

    def _line(self, before: Line, process: Process) -> Line:
        line = Line(self.net, self.delay_s, process)
        line.breaks, line.stalls, line.loses, line.doubles = before.breaks, before.stalls, before.loses, before.doubles
        line.cut = before.cut
        return line

    def _main_ended(self, node: Node, process: Process, task: asyncio.Task[None]) -> None:
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            self.wrong(f"{process} ended with {_chain(problem)}")
        # What the loop owes a process that ended: its cancelled callbacks. What is left then, nobody owns.
        self.later(0.01, self._swept, node, process, problem is None)

    def _swept(self, node: Node, process: Process, peaceful: bool) -> None:
        if peaceful and process.unfinished:
            self.wrong(f"{process} ended and left tasks behind: {[_where(task) for task in process.unfinished]}")
        self.note(f"{process} ended")
        self._gone(node, process)

    def kill(self, node: Node, *, silently: bool = False) -> None:
        """SIGKILL: at the await it has reached, nothing runs any more. `silently`: its whole machine is gone, and
        nobody at the other end of a connection is told."""
        process = node.process
        if process.alive:
            self.loop.kill(process)
            if silently:
                for child in node.children:
                    self.loop.kill(child.process)
                self.later(SILENCE_S, self._gone, node, process)
            else:
                self._gone(node, process)

    def _gone(self, node: Node, process: Process) -> None:
        """The system cleans up behind a process, and its keeper starts another."""
        self.loop.kill(process)
        if node.process is not process:
            return
        for child in node.children:
            child.parent_died()
        self.database.gone(process)
        self.broker.gone(process)
        if node.bus:
            self.later(self.net.uniform(*self.delay_s), node.bus.dead)
        if (port := self.ports.get(node.name)) and port.process is process:
            port.open = False
            self.later(self.net.uniform(*self.delay_s), self._close_clients, process)
        node.ended.set()
        if not node.stay_down:
            self.later(self.rng.uniform(*RESTART_S), self._restart, node, process)

    def _restart(self, node: Node, process: Process) -> None:
        if node.process is process and not node.stay_down:
            node.ended.clear()
            self.boot(node)

    def freeze(self, node: Node, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        process = node.process
        self.loop.freeze(process)
        process.freezes += 1
        self.later(seconds, self._thaw, process, process.freezes)

    def _thaw(self, process: Process, freeze: int) -> None:
        if process.frozen and process.freezes == freeze:
            self.note(f"{process} thaws")
            self.loop.thaw(process)

    def terminate(self, node: Node) -> None:
        """SIGTERM."""
        if node.process.alive and not self.loop.signal(node.process, signal.SIGTERM):
            self._gone(node, node.process)

    # -- clients

    def connect(self, name: str) -> ClientSide:
        """A connection to a gateway. Raises `Refused`."""
        port = self.ports.get(name)
        if port is None or not port.open:
            raise Refused
        client = ClientSide(port, Line(self.net, self.delay_s))
        self.connections = [one for one in self.connections if not one.over]
        self.connections.append(client)
        return client

    def _close_clients(self, process: Process) -> None:
        for client in self.connections:
            if client.process is process:
                client.ended()

    # -- what the run says of itself

    def _strike(self, process: Process) -> None:
        node = self._by_process.get(process)
        if node is None or node.process is not process:
            return
        seconds = self.freeze_at_strike.pop(process, 0.0)
        if seconds:
            self.fault("freeze", f"{process} at step {process.steps} for {seconds:.2f} s")
            self.freeze(node, seconds)
        else:
            self.fault("kill", f"{process} at step {process.steps}")
            self.kill(node)

    def _reached(self, point: str) -> None:
        process = PROCESS.get()
        left = self.armed.get(process)
        if left is None or not process.alive:
            return
        if left:
            self.armed[process] = left - 1
            return
        del self.armed[process]
        node = self._by_process[process]
        self.fault("crash point", f"{process} dies at {point}")
        self.kill(node)

    def _committed(self, tx: Tx) -> None:
        said = " ".join(f"{r.job_id[-4:]}.{r.seq}:{r.type}" for _, r in tx.events)
        self.note(f"{tx.session.owner} commits {tx.xid}: {said}")
        for _, recorded in tx.events:
            if recorded.type == "started":
                self.workers[recorded.actor.removeprefix("worker:")] = str(tx.session.owner)
        rows = self.database.rows.values()
        held = Counter(row.concurrency_key for row in rows if row.concurrency_key and row.job.status == "running")
        for key, times in held.items():
            if times > CONCURRENT:
                self.wrong(f"{times} jobs with the concurrency key {key} run at once")
        unfinished = Counter(row.unique_key for row in rows if row.unique_key and not row.job.is_final)
        for key, times in unfinished.items():
            if times > 1:
                self.wrong(f"{times} unfinished jobs have the unique key {key}")

    def problems(self) -> None:
        """What nobody caught, in processes that were alive."""
        for process, message, problem in self.loop.problems:
            if process.alive or process is WORLD:
                self.wrong(f"in {process}: {message}: {_chain(problem)}")
        self.loop.problems.clear()


class _Listener(logging.Handler):
    """An error in a log of a process is a violation: the product logs one only for what must not be."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        process = PROCESS.get()
        if not process.alive:
            return
        text = record.getMessage()
        if record.levelno >= logging.ERROR and not text.startswith("Exception in callback"):
            problem = record.exc_info[1] if record.exc_info else None
            self._world.wrong(f"{process} logs: {text} {_chain(problem)}")
        else:
            self._world.note(f"{process} warns: {text}")


def _where(task: asyncio.Task[Any]) -> str:
    """What a task waits for: the coroutines, outermost first."""
    names = []
    coro: Any = task.get_coro()
    while coro is not None and hasattr(coro, "cr_frame"):
        line = coro.cr_frame.f_lineno if coro.cr_frame else 0
        names.append(f"{coro.__qualname__}:{line}")
        coro = coro.cr_await
    return " > ".join(names)


def _chain(problem: BaseException | None) -> str:
    if problem is None:
        return ""
    if isinstance(problem, BaseExceptionGroup):
        return " & ".join(_chain(one) for one in problem.exceptions)
    where = problem.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    place = f" ({where.tb_frame.f_code.co_filename.rpartition('/')[2]}:{where.tb_lineno})" if where else ""
    return f"{type(problem).__name__}: {problem}{place}"

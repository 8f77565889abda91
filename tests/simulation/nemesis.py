"""What goes wrong: processes die and stand still, lines are cut, servers go away, at moments drawn from the seed."""

import asyncio
import random
from collections.abc import Callable

from tests.simulation.line import Line, Server
from tests.simulation.world import Node, World

KINDS = (
    "kill", "machine", "freeze", "strike", "strike", "strike", "crash point", "crash point", "term", "database cut",
    "bus cut", "database down", "database frozen", "bus down", "bus frozen", "database noise", "copy deleted",
    "child killed", "child frozen", "clock",
)  # fmt: skip
PAUSE_S = (0.2, 3.0)


class Nemesis:
    """Of each seed a subset of all kinds: together they would hide each other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(f"{world.seed} nemesis")
        kinds = dict.fromkeys(KINDS)
        chosen = self.rng.sample(list(kinds), self.rng.randint(1, 7))
        self.kinds = [kind for kind in KINDS if kind in chosen]
        self._undo: dict[str, Callable[[], None]] = {}
        if self.rng.random() < 0.6:
            for node in world.nodes:
                node.bus_line.loses, node.bus_line.doubles = self.rng.choice(((0.1, 0.05), (0.5, 0.3), (1.0, 0.0)))

    async def rage(self, seconds: float) -> None:
        """One fault after the other, then everything is healed."""
        end = self.world.now + seconds
        while (pause_s := self.rng.uniform(*PAUSE_S)) + self.world.now < end:
            await asyncio.sleep(pause_s)
            self._strike(self.rng.choice(self.kinds))
        await asyncio.sleep(max(end - self.world.now, 0))
        self.heal()

    def heal(self) -> None:
        """Everything works again; dead processes are started by their keeper."""
        self.world.note("everything heals")
        for undo in list(self._undo.values()):
            undo()
        self._undo.clear()
        self.world.armed.clear()
        self.world.freeze_at_strike.clear()
        for node in self.world.nodes:
            node.process.strike_at = -1
            for line in (node.database_line, node.bus_line):
                line.breaks = line.stalls = line.loses = line.doubles = 0.0
            if node.process.frozen:
                self.world.loop.thaw(node.process)
            for child in node.children:
                if child.process.frozen:
                    self.world.loop.thaw(child.process)

    def _strike(self, kind: str) -> None:
        up = [node for node in self.world.nodes if node.up]
        if not up:
            return
        node = self.rng.choice(up)
        match kind:
            case "database cut" | "bus cut":
                self._cut(node, kind.split(maxsplit=1)[0], self.rng.uniform(0.5, 20.0))
            case "database down" | "bus down":
                self._down(self._server(kind), kind, self.rng.uniform(0.3, 15.0))
            case "database frozen" | "bus frozen":
                self._frozen(self._server(kind), kind, self.rng.uniform(0.3, 12.0))
            case "database noise":
                self._noise(self.rng.uniform(2.0, 10.0))
            case "copy deleted" | "clock":
                self._tamper(kind)
            case "child killed" | "child frozen":
                self._child(kind, node)
            case _:
                self._process(kind, node)

    def _server(self, kind: str) -> Server:
        return self.world.database if kind.startswith("database") else self.world.broker

    def _process(self, kind: str, node: Node) -> None:
        """What happens to a gateway or a worker."""
        world, rng = self.world, self.rng
        match kind:
            case "kill":
                world.fault(kind, f"{node.process}")
                world.kill(node)
            case "machine":
                world.fault(kind, f"{node.process} is gone with its machine")
                world.kill(node, silently=True)
            case "freeze":
                seconds = rng.choice((rng.uniform(0.2, 3.0), rng.uniform(3.0, 25.0)))
                world.fault(kind, f"{node.process} for {seconds:.2f} s")
                world.freeze(node, seconds)
            case "strike":
                node.process.strike_at = node.process.steps + rng.randint(1, 300)
                if rng.random() < 0.4:
                    world.freeze_at_strike[node.process] = rng.uniform(0.5, 15.0)
            case "crash point":
                world.armed[node.process] = rng.randrange(30)
            case _:
                world.fault(kind, f"{node.process}")
                world.terminate(node)

    def _tamper(self, kind: str) -> None:
        """Somebody changes what is not ours alone."""
        world = self.world
        if kind == "clock":
            step_ms = self.rng.choice((-1, 1)) * self.rng.randint(500, 20_000)
            world.fault(kind, f"the database's steps by {step_ms} ms")
            world.clock_step_ms += step_ms
        elif world.broker.copy is not None:
            world.fault(kind, f"{len(world.broker.copy)} messages")
            world.broker.copy = None

    def _child(self, kind: str, node: Node) -> None:
        living = [child for child in node.children if child.process.alive]
        if not living:
            return
        child = self.rng.choice(living)
        self.world.fault(kind, f"{child.process}")
        if kind == "child killed":
            child.die(-9)
        else:
            self.world.loop.freeze(child.process)
            self.world.later(self.rng.uniform(0.5, 20.0), self.world.loop.thaw, child.process)

    def _cut(self, node: Node, which: str, seconds: float) -> None:
        self.world.fault(f"{which} cut", f"{node.process} for {seconds:.2f} s")
        line = self._line(node, which)
        line.cut = True
        if which == "bus" and node.bus:
            self.world.later(self.rng.uniform(1.0, 8.0), self._heartbeat_missed, node)

        def undo() -> None:
            self._line(node, which).heal()

        self._until(f"{which} cut {node.name}", seconds, undo)

    def _line(self, node: Node, which: str) -> Line:
        return node.database_line if which == "database" else node.bus_line

    def _heartbeat_missed(self, node: Node) -> None:
        if node.bus_line.cut and node.bus:
            node.bus.disconnected()

    def _down(self, server: Server, kind: str, seconds: float) -> None:
        if server.up and not server.frozen:
            self.world.fault(kind, f"for {seconds:.2f} s")
            server.crash()
            self._until(kind, seconds, server.restart)

    def _frozen(self, server: Server, kind: str, seconds: float) -> None:
        if server.up and not server.frozen:
            self.world.fault(kind, f"for {seconds:.2f} s")
            server.freeze()
            self._until(kind, seconds, server.thaw)

    def _noise(self, seconds: float) -> None:
        self.world.fault("database noise", f"for {seconds:.2f} s")
        breaks, stalls = self.rng.choice(((0.03, 0.0), (0.1, 0.0), (0.0, 0.03), (0.02, 0.02)))
        for node in self.world.nodes:
            node.database_line.breaks, node.database_line.stalls = breaks, stalls

        def undo() -> None:
            for node in self.world.nodes:
                node.database_line.breaks = node.database_line.stalls = 0.0

        self._until("noise", seconds, undo)

    def _until(self, name: str, seconds: float, undo: Callable[[], None]) -> None:
        def over() -> None:
            if self._undo.get(name) is undo:
                del self._undo[name]
                self.world.note(f"{name} is over")
                undo()

        self._undo[name] = undo
        self.world.later(seconds, over)

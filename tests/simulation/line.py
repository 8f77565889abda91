"""What lies between a simulated process and a simulated server: a line that is slow, breaks, or swallows everything."""

import asyncio
import functools
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from events.errors import PhaselineError
from tests.simulation.loop import OUTSIDE, Process

T = TypeVar("T")


class Line:
    """One process's way to one server. Without an `rng` it is perfect and takes no time."""

    def __init__(
        self,
        rng: random.Random | None = None,
        delay_s: tuple[float, float] = (0.0005, 0.01),
        owner: Process | None = None,
    ) -> None:
        self.rng = rng
        self.owner = owner  # dead, it sends nothing
        self.loop = asyncio.get_running_loop()  # asking for it is not free, and this is asked for each message
        self.delay_s = delay_s
        self.cut = False  # nothing arrives, in either direction, and nobody is told; what was sent arrives after `heal`
        self._held: list[Callable[[], None]] = []
        self.breaks = 0.0  # how likely a connection breaks at a message
        self.stalls = 0.0  # how likely a message takes seconds
        self.loses = 0.0  # how likely what nobody confirms is lost
        self.doubles = 0.0  # how likely it arrives again, later
        self.at: Callable[[str], Awaitable[None]] | None = None  # told before and after what is sent: may never return

    def delay(self) -> float:
        """How long the next message travels."""
        if self.rng is None:
            return 0.0
        if self.stalls and self.rng.random() < self.stalls:
            return self.rng.uniform(0.5, 8.0)
        return self.rng.uniform(*self.delay_s)

    def carry(self, call: Callable[[], None], delay_s: float | None = None, *, by_system: bool = False) -> None:
        """Makes `call` at the other end, when the message arrives there. `by_system`: the system sends it, not the
        process, and does so for a dead one too."""
        if self.owner is not None and not self.owner.alive and not by_system:
            return
        if self.cut:
            self._held.append(call)
        elif (delay_s := self.delay() if delay_s is None else delay_s) > 0:
            self.loop.call_later(delay_s, call, context=OUTSIDE)
        else:
            self.loop.call_soon(call, context=OUTSIDE)

    def heal(self) -> None:
        """Messages arrive again, those held up meanwhile first: the other side's system sends them once more."""
        self.cut = False
        held, self._held = self._held, []
        for call in held:
            self.carry(call, 0.0)

    def broken(self) -> bool:
        """Whether the connection breaks at the next message."""
        return self.rng is not None and self.breaks > 0 and self.rng.random() < self.breaks


class Fifo:
    """Messages of one sender arrive in the order they were sent."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._arrives_at = 0.0

    def send(self, call: Callable[[], None], *, by_system: bool = False) -> None:
        """Makes `call` at the other end."""
        now = self._line.loop.time()
        self._arrives_at = max(now + self._line.delay(), self._arrives_at)
        self._line.carry(call, self._arrives_at - now, by_system=by_system)

    def send_unsure(self, call: Callable[[], None]) -> None:
        """As `send`, for what may be lost or doubled."""
        rng, line = self._line.rng, self._line
        if rng is None or rng.random() >= line.loses:
            self.send(call)
        if rng is not None and rng.random() < line.doubles:
            line.carry(call, rng.uniform(0.0, 5.0))


class Server:
    """What can be down (refuses at once) or frozen (takes everything, answers nothing until it thaws)."""

    def __init__(self, away: type[PhaselineError]) -> None:
        self.away = away
        self.up = True
        self.frozen = False
        self.sessions: dict[int, Session] = {}
        self._numbers = itertools.count(1)
        self._backlog: list[Callable[[], None]] = []

    def open(self, line: Line, owner: object) -> "Session":
        """A connection. Whether the server is there shows at its first call."""
        number = next(self._numbers)
        session = self.sessions[number] = Session(self, line, owner, number)
        return session

    def handle(self, work: Callable[[], None]) -> None:
        """Something arrived."""
        if self.frozen:
            self._backlog.append(work)
        else:
            work()

    def freeze(self) -> None:
        """Answers nothing."""
        self.frozen = True

    def thaw(self) -> None:
        """Works off what arrived meanwhile."""
        self.frozen = False
        backlog, self._backlog = self._backlog, []
        for work in backlog:
            work()

    def crash(self) -> None:
        """Every connection is gone."""
        self.up = False
        self._backlog.clear()
        for session in list(self.sessions.values()):
            session.lose()

    def restart(self) -> None:
        """Takes connections again."""
        self.up = True

    def gone(self, owner: object) -> None:
        """A process ended; its system closes its connections."""
        for session in [one for one in self.sessions.values() if one.owner is owner]:
            session.hang_up()

    def left(self, session: "Session") -> None:
        """The client's end of a connection is closed."""
        session.end()

    def ended(self, session: "Session") -> None:
        """A connection is gone; subclasses give back what it held."""


class Session:
    """One connection: messages arrive in the order they were sent."""

    def __init__(self, server: Server, line: Line, owner: object, number: int) -> None:
        self.server = server
        self.line = line
        self.owner = owner
        self.number = number
        self.alive = True
        self.hung_up = False
        self.calls = 0
        self._there = Fifo(line)
        self._replies: dict[int, asyncio.Future[Any]] = {}

    async def call(self, name: str, work: Callable[[Callable[..., None]], None]) -> Any:
        """Asks the server: `work(reply)` is run there and calls `reply(result)` or `reply(error=…)`, at once or later.

        Raises the server's `away` when the connection breaks, whether or not the work was done; waits for ever when
        nothing arrives: whoever calls has a deadline.
        """
        line, server = self.line, self.server
        if line.at:
            await line.at(f"before {name}")
        future: asyncio.Future[Any] = line.loop.create_future()
        self.calls += 1
        number = self.calls
        self._replies[number] = future
        if line.broken():
            line.carry(self.lose, by_system=True)
        else:
            self._there.send(lambda: server.handle(lambda: self._work(number, work)))
        try:
            if line.at:
                await line.at(f"sent {name}")
            result = await future
        except asyncio.CancelledError:
            self.hang_up()
            raise
        finally:
            self._replies.pop(number, None)
        if line.at:
            await line.at(f"after {name}")
        return result

    def hang_up(self) -> None:
        """The client's end is closed; the server hears of it behind what was sent before."""
        self.hung_up = True
        self._there.send(lambda: self.server.handle(lambda: self.server.left(self)), by_system=True)

    def lose(self) -> None:
        """The connection breaks: both ends learn it, the client in a moment."""
        self.end()
        for future in self._replies.values():
            self.line.carry(functools.partial(self._fail, future))

    def end(self) -> None:
        """The server's end is gone."""
        if self.alive:
            self.alive = False
            self.server.sessions.pop(self.number, None)
            self.server.ended(self)

    def _work(self, number: int, work: Callable[[Callable[..., None]], None]) -> None:
        if not self.alive or not self.server.up:
            self.lose()
            return

        def reply(result: Any = None, *, error: BaseException | None = None) -> None:
            if self.line.broken():
                self.lose()
            else:
                self.line.carry(lambda: self._answer(number, result, error))

        work(reply)

    def _answer(self, number: int, result: Any, error: BaseException | None) -> None:
        future = self._replies.get(number)
        if future is None or future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _fail(self, future: asyncio.Future[Any]) -> None:
        if not future.done():
            future.set_exception(self.server.away("the connection broke"))

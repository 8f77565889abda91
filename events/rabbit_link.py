"""A connection to RabbitMQ that is replaced, never repaired.

aio-pika's own reconnecting ("robust") connection re-declares an exclusive queue under its old name, which RabbitMQ
refuses until it has noticed the loss itself: measured, 31.7 s deaf after a half-open drop against 2.0 s with fresh
names. So a `Session` lives exactly as long as one plain connection and a `Link` starts another, and whatever works
on it begins from nothing each time.
"""

import asyncio
import logging
import random
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Never

from aio_pika import Connection
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPError
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from events.errors import BusUnavailable

HEARTBEAT_S = 15  # RabbitMQ drops us after two missed ones; under 5 s gives false alarms
UNACKED_MS_MAX = 20_000  # heartbeats leave every 7 s; aiormq alone would wait 48 s for a reply
CONNECT_S = 5.0
CALL_S = 5.0  # one declaration, or one window of confirms
PROBE_S = 5.0  # between two questions on a connection that only listens, see `Link`
CLOSE_S = 2.0
ABORT_AFTER_S = 1.0  # from a missed deadline to cutting the socket, for a call that its cancelling does not end
PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 2.0  # between two tries: a returning server is found within this
STALLED_PAUSE_MAX_S = 15.0  # when it lets us in and then answers nothing (memory alarm, frozen)

# What a broken connection, a refused declaration or a missed deadline looks like. RuntimeError: aiormq's closed channel.
BROKEN = (AMQPError, OSError, RuntimeError, TimeoutError, BusUnavailable)

log = logging.getLogger(__name__)


class Session:
    """One connection, from its handshake to its loss. Channels opened on it end with it."""

    def __init__(self, connection: Connection, plug: "_Plug") -> None:
        self._connection = connection
        self._plug = plug
        self._waits: set[asyncio.Timeout] = set()
        self.lost = asyncio.Event()
        self.stalled = False  # a deadline was missed on it
        connection.close_callbacks.add(self._on_close)

    @property
    def server_version(self) -> str:
        """What RabbitMQ said of itself, such as `3.13.7`."""
        transport = self._connection.transport
        told = transport.connection.server_properties.get("version", "") if transport is not None else ""
        return told.decode() if isinstance(told, bytes) else str(told)

    @asynccontextmanager
    async def alive(self, within_s: float | None = None, *, vital: bool = False) -> AsyncIterator[None]:
        """Runs a block while the connection lives. Raises `BusUnavailable` when it is lost, or after `within_s`;
        a `vital` block that is late means that the whole connection is stuck and costs it."""
        loop = asyncio.get_running_loop()
        last_resort = loop.call_later(within_s + ABORT_AFTER_S, self.abort) if within_s is not None else None
        wait = asyncio.timeout(within_s)
        try:
            with _told_apart():
                async with wait:
                    self._waits.add(wait)
                    if self.lost.is_set():
                        raise BusUnavailable
                    yield
        except TimeoutError as late:
            why = "the connection was lost" if self.lost.is_set() else f"no answer within {within_s} s"
            if vital and not self.lost.is_set():
                self.stalled = True
                self.abort()
            raise BusUnavailable(f"RabbitMQ: {why}") from late
        finally:
            self._waits.discard(wait)
            if last_resort is not None:
                last_resort.cancel()

    @asynccontextmanager
    async def channel(self, *, returns_raise: bool = False) -> AsyncIterator[AbstractChannel]:
        """A channel for the length of a block. The block holds it: aio-pika itself holds channels weakly."""
        async with self.alive(CALL_S, vital=True):  # needs nobody's quorum: no answer means that nobody is there
            channel = self._connection.channel(on_return_raises=returns_raise)
            await channel.initialize()
        try:
            yield channel
        finally:
            with suppress(*BROKEN):
                async with self.alive(CLOSE_S):
                    await channel.close()

    def abort(self) -> None:
        """Cuts the socket. Nothing on this connection waits any longer."""
        self._plug.abort()
        self._lose()

    async def end(self) -> None:
        """Says goodbye within `CLOSE_S`, else cuts the socket."""
        self._lose()
        # Cut first, cancel later: aiormq's writer, once cancelled, waits for a frozen server to take what is buffered.
        last_resort = asyncio.get_running_loop().call_later(CLOSE_S, self._plug.abort)
        try:
            with suppress(*BROKEN), _told_apart():
                async with asyncio.timeout(CLOSE_S + ABORT_AFTER_S):
                    await self._connection.close()
        finally:
            last_resort.cancel()
            self._plug.abort()

    def _on_close(self, *_: object) -> None:
        self._lose()

    def _lose(self) -> None:
        self.lost.set()
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(now)


class Link:
    """Keeps one session at a time, for as long as `run` runs."""

    def __init__(self, url: str, purpose: str, *, listening: bool = False) -> None:
        """A `listening` link asks RabbitMQ something now and then: nothing else would tell for 48 s that a line
        without traffic is dead. One that publishes hears it from its confirms, and may be blocked for good reason."""
        if URL(url).scheme not in ("amqp", "amqps"):
            raise ValueError("a RabbitMQ URL begins with amqp:// or amqps://")
        self._url = url
        self._purpose = purpose
        self._listening = listening
        self._pause = _Pause()
        self._up = asyncio.Event()
        self._state = "unknown"
        self.session: Session | None = None

    async def run(self) -> Never:
        """Connects, waits for the loss, pauses with jitter, connects again."""
        while True:
            try:
                session = await connect(self._url, self._purpose)
            except BROKEN as failure:
                self._pause.failed(stalled=False)
                self._said("away", logging.WARNING, "RabbitMQ is away (%s): %r", self._purpose, failure)
            except Exception:  # as in `keep`
                self._pause.failed(stalled=False)
                log.exception("RabbitMQ (%s): cannot connect", self._purpose)
            else:
                await self._hold(session)
            await asyncio.sleep(self._pause.next_s())

    async def ready(self) -> Session:
        """The session, once there is one; waits as long as it takes, since a server may be away for hours."""
        while self.session is None:
            await self._up.wait()
        return self.session

    def now(self) -> Session:
        """The session. Raises `BusUnavailable` when there is none."""
        if self.session is None:
            raise BusUnavailable
        return self.session

    async def keep(self, work: Callable[[Session], Awaitable[None]]) -> Never:
        """Does `work` on each session, again after each failure; `work` ends only when it has to start anew."""
        pause = _Pause()
        while True:
            session = await self.ready()
            started = asyncio.get_running_loop().time()
            try:
                async with session.alive():
                    await work(session)
            except BROKEN as failure:
                if not session.lost.is_set():
                    log.warning("RabbitMQ (%s): beginning anew: %s", self._purpose, failure)
            except Exception:  # a mistake of ours must not end the bus for the rest of the process's life
                log.exception("RabbitMQ (%s): beginning anew", self._purpose)
            if asyncio.get_running_loop().time() - started > PAUSE_MAX_S:
                pause.worked()
            pause.failed(stalled=False)
            await asyncio.sleep(pause.next_s())

    async def _hold(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        self._said("there", logging.INFO, "RabbitMQ is there (%s)", self._purpose)
        self.session = session
        self._up.set()
        try:
            await self._lost(session)  # for the connection's whole life, days
        finally:
            self.session = None
            self._up.clear()
            if loop.time() - since > PAUSE_MAX_S and not session.stalled:
                self._pause.worked()  # one that is lost as soon as it is made does not count
            self._pause.failed(stalled=session.stalled)
            await session.end()

    async def _lost(self, session: Session) -> None:
        while not session.lost.is_set():
            try:
                async with asyncio.timeout(PROBE_S if self._listening else None):
                    await session.lost.wait()
            except TimeoutError:
                with suppress(*BROKEN):
                    async with session.channel():  # no answer in time costs the connection
                        pass

    def _said(self, state: str, level: int, words: str, *values: object) -> None:
        # Once a change, not once a try: an outage of an hour is one line.
        log.log(level if state != self._state else logging.DEBUG, words, *values)
        self._state = state


class _Pause:
    """Doubling with jitter; short after a loss, long after a stall."""

    def __init__(self) -> None:
        self._failures = 0
        self._stalls = 0

    def failed(self, *, stalled: bool) -> None:
        self._failures += 1
        self._stalls += stalled

    def worked(self) -> None:
        self._failures = self._stalls = 0

    def next_s(self) -> float:
        calm = min(PAUSE_MIN_S * 2.0 ** min(self._failures, 10), PAUSE_MAX_S)
        slow = min(2.0 ** min(self._stalls, 10), STALLED_PAUSE_MAX_S) if self._stalls else 0.0
        # Half of it is drawn: a fleet that lost its server together must not come back together.
        return float(max(calm, slow) * random.uniform(0.5, 1.0))  # noqa: S311 jitter


class _Plug(TransportFactory):
    """Opens the transport and remembers it, so that it can be cut: aiormq itself waits up to 48 s to close one."""

    def __init__(self) -> None:
        self._writer: StreamWriter | None = None

    async def create(self, url: URL, **options: Any) -> tuple[StreamReader, StreamWriter]:
        factory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, self._writer = await factory.create(url, **options)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere a silent network is noticed by heartbeats alone
            wire: socket.socket = self._writer.get_extra_info("socket")
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKED_MS_MAX)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


@contextmanager
def _told_apart() -> Iterator[None]:
    """Tells a cancel of ours from aiormq's errors. When its connection ends it raises `CancelledError` in whoever
    waits, and when that happens during a cancel of ours, its own error instead: either would end or keep the wrong
    task (seen: one close in twelve hung when RabbitMQ was frozen)."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    except asyncio.CancelledError as cancel:
        if task is None or task.cancelling() > before:
            raise
        raise BusUnavailable("RabbitMQ: the connection ended") from cancel
    except Exception as failure:
        # A bare `Exception` is aiormq's too: of a channel that ends and has no reason to give.
        bare = type(failure) is Exception
        if not bare and not isinstance(failure, BROKEN):
            raise
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError from failure
        if bare:
            raise BusUnavailable("RabbitMQ: the channel ended") from failure
        raise
    else:
        # It also swallows a cancel altogether while it declares: the block then ends as if nobody had asked.
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


async def connect(url: str, purpose: str) -> Session:
    """One connection that `purpose` names in RabbitMQ's list. Raises one of `BROKEN`."""
    given = URL(url)
    plug = _Plug()
    connection = Connection(given.with_query({"heartbeat": HEARTBEAT_S, "name": purpose, **given.query}))
    connection.kwargs["transport_factory"] = plug
    try:
        with _told_apart():
            async with asyncio.timeout(CONNECT_S):
                await connection.connect()
    except BaseException:
        plug.abort()
        await connection.close()  # without a transport this only marks it closed
        raise
    return Session(connection, plug)

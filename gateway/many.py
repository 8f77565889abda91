"""Many jobs on one socket, and the feed (docs/protocol.md §3): each subscription is a cursor of its own.

A task per subscription waits for its job and takes turns at the socket, so that no busy job starves another. What all
of them together have taken from rings and pages and not yet sent is bounded: a few hold a chunk, the others wait.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from events.errors import LogUnavailable, UnknownJob
from gateway import frames
from gateway.artifacts import inlined
from gateway.commands import Auth, BadCommand, SubscribeFeed, SubscribeJob, Unsubscribe, command_of
from gateway.connection import Connection, Ending
from gateway.departures import Departure
from gateway.deps import DEPS, HUB, Identity
from gateway.feed import FeedReader
from gateway.following import RESET_BYTES_MAX, Following, FullQuery, Place, reconnect_ms
from gateway.hub import TooManyWatched
from gateway.jobs import JOB_ID
from gateway.limits import LIMITER
from gateway.problems import Problem
from gateway.ring import Entry
from gateway.sockets import SOCKETS
from gateway.viewer import Leaving

SUBSCRIPTIONS_MAX = 128  # on one socket
HANDS = 4  # subscriptions of one socket that hold a chunk (63 KiB, or one event) at a time
HAND_S = 1.0  # how long one may wait for the log with a hand that others need
BAD_COMMANDS = (10, 10.0)  # so many within so many seconds; one more ends the socket
COMMANDS = (300, 10.0)
NOTICES_MAX = 100  # answers to commands that the peer has not taken
FEED = "feed"
UNKNOWN_JOB = ("unknown_job", "there is no such job")


@dataclass(slots=True, eq=False)
class Subscription:
    """One cursor on the socket. It may be ended at any moment but in the middle of a frame."""

    task: asyncio.Task[None] | None = None
    sending: bool = False
    over: bool = False

    def leave(self) -> None:
        """Ends it, at the next moment it may."""
        self.over = True
        if not self.sending and self.task is not None:
            self.task.cancel()


class Rate:
    """At most so many within so many seconds."""

    def __init__(self, most: int, seconds: float) -> None:
        self._recent: deque[float] = deque(maxlen=most)
        self._most = most
        self._seconds = seconds

    def exceeded(self, now: float) -> bool:
        """Counts one more."""
        full = len(self._recent) == self._most and now - self._recent[0] < self._seconds
        self._recent.append(now)
        return full


class ManyStream:
    """One client's conversation. `query` holds for all its subscriptions; `address` is who it is to a limit."""

    def __init__(
        self, app: web.Application, who: Identity, query: FullQuery, departure: Departure, address: str | None
    ) -> None:
        self._app = app
        self._address = address
        self._deps = app[DEPS]
        self._who = who
        self._query = query
        self._departure = departure
        self._subscriptions: dict[str, Subscription] = {}
        self._turn = asyncio.Lock()  # first come, first served
        self._hands = asyncio.Semaphore(HANDS)
        self._notices: deque[bytes] = deque()
        self._noticed = asyncio.Event()
        self._ending: Ending | None = None
        self._bad = Rate(*BAD_COMMANDS)
        self._rate = Rate(*COMMANDS)

    async def talk(self, connection: Connection) -> Ending:
        """Serves the socket until the peer leaves, or has to."""
        self._connection = connection
        connection.heartbeat_s = self._query.heartbeat_s
        connection.heartbeat = lambda: frames.ALIVE
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            connection.hear(lambda text: self._hear(text, loop.time()))
            self._departure.due.add_done_callback(lambda _: self._noticed.set())
            while True:
                await self._noticed_within(connection.wait_s())
                async with self._turn:
                    while self._notices:
                        await connection.send(self._notices.popleft())
                    if self._departure.due.done():
                        await self._say_goodbye("restarting")
                    if self._ending is not None:
                        raise self._ending
                    await connection.tick()

    async def _noticed_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._noticed.wait()
        except TimeoutError:
            return
        self._noticed.clear()

    async def _say_goodbye(self, reason: str) -> None:
        """With the turn held, once. Always ends by raising `Ending`."""
        if self._ending is None:
            self._ending = Ending(1012, reason)
            await self._connection.send(frames.goodbye(reason, reconnect_ms()))
        raise self._ending

    # -- commands

    def _hear(self, text: str, now: float) -> None:
        if self._rate.exceeded(now):
            self._end(Ending(4429, f"retry_after={COMMANDS[1]:g}"))
            return
        try:
            command = command_of(text)
        except BadCommand as bad:
            self._notice(
                frames.refused("bad_command", f"{bad.field}: {bad}" if bad.field else str(bad), field=bad.field)
            )
            if self._bad.exceeded(now):
                self._end(Ending(4400, "too many bad commands"))
            return
        match command:
            case SubscribeJob():
                query = FullQuery(
                    after=command.after,
                    last=None,
                    epoch=command.epoch,
                    batch=self._query.batch,
                    inline=self._query.inline,
                    heartbeat_s=self._query.heartbeat_s,
                )
                self._subscribe(command.job_id, partial(self._follow_job, command.job_id, query))
            case SubscribeFeed():
                self._subscribe(FEED, partial(self._follow_feed, command.cursor))
            case Unsubscribe():
                self._unsubscribe(FEED if command.feed else command.job_id or "")
            case Auth():
                if self._connection.on_auth is not None:
                    self._connection.on_auth(text)

    def _subscribe(self, key: str, follow: Callable[[Subscription], Awaitable[None]]) -> None:
        sockets = self._app[SOCKETS]
        if not self._who.watches(None if key == FEED else key):  # with a pass
            self._refuse(key, *(("forbidden", "the pass is not good for the feed") if key == FEED else UNKNOWN_JOB))
        elif key in self._subscriptions:
            self._refuse(key, "already_subscribed", "this socket follows it already")
        elif len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            self._refuse(key, "too_many_subscriptions", f"one socket follows at most {SUBSCRIPTIONS_MAX}")
        elif not self._app[LIMITER].may_follow(self._address):
            self._refuse(key, "too_many_subscriptions", "this address follows as many streams as it may")
        elif sockets.subscriptions >= sockets.subscriptions_max:
            self._refuse(key, "overloaded", "this gateway follows as many streams as it may; try again later")
        else:
            subscription = self._subscriptions[key] = Subscription()
            subscription.task = self._tasks.create_task(self._keep(key, subscription, follow))

    def _unsubscribe(self, key: str) -> None:
        subscription = self._subscriptions.pop(key, None)
        if subscription is None:
            self._refuse(key, "not_subscribed", "this socket does not follow it")
        else:
            subscription.leave()

    def _refuse(self, key: str, code: str, message: str) -> None:
        self._notice(self._refusal(key, code, message))

    def _refusal(self, key: str, code: str, message: str) -> bytes:
        return frames.refused(code, message, feed=True) if key == FEED else frames.refused(code, message, job_id=key)

    def _notice(self, frame: bytes) -> None:
        if len(self._notices) >= NOTICES_MAX:
            self._end(Ending(4429, "retry_after=10"))
            return
        self._notices.append(frame)
        self._noticed.set()

    def _end(self, ending: Ending) -> None:
        self._ending = self._ending or ending
        self._noticed.set()

    # -- subscriptions

    async def _keep(
        self, key: str, subscription: Subscription, follow: Callable[[Subscription], Awaitable[None]]
    ) -> None:
        """Follows to the end, whatever that is; only the socket's own end, and a restart, go beyond it."""
        sockets = self._app[SOCKETS]
        sockets.subscriptions += 1
        try:
            with self._app[LIMITER].subscription(self._address):
                await follow(subscription)
        except UnknownJob:
            await self._say(subscription, self._refusal(key, *UNKNOWN_JOB))
        except TooManyWatched:
            sockets.refused("watched_jobs")
            await self._say(
                subscription, self._refusal(key, "overloaded", "this gateway follows as many jobs as it may")
            )
        except LogUnavailable:
            await self._say(subscription, self._refusal(key, "unavailable", "the log does not answer; try again later"))
        except Problem as problem:
            await self._say(subscription, self._refusal(key, problem.kind, problem.detail))
        except Leaving as leaving:
            async with self._turn:
                await self._say_goodbye(leaving.reason)
        finally:
            sockets.subscriptions -= 1
            if self._subscriptions.get(key) is subscription:
                del self._subscriptions[key]

    async def _say(self, subscription: Subscription, *said: bytes) -> None:
        """Sends frames in one turn, unless the subscription has ended."""
        async with self._turn:
            if not subscription.over:
                subscription.sending = True
                for frame in said:
                    await self._connection.send(frame)
                subscription.sending = False
        if subscription.over:
            raise asyncio.CancelledError

    async def _say_large(
        self, subscription: Subscription, key: Hashable, size: int, make: Callable[[], Awaitable[bytes]]
    ) -> None:
        async with self._turn:
            if not subscription.over:
                subscription.sending = True
                await self._connection.send_large(key, size, make)
                subscription.sending = False
        if subscription.over:
            raise asyncio.CancelledError

    async def _follow_job(self, job_id: str, query: FullQuery, subscription: Subscription) -> None:
        if not JOB_ID.fullmatch(job_id):
            raise UnknownJob
        async with Following(self._app, self._who, job_id, query) as place:
            await self._say(subscription, place.hello(query, self._deps))
            if place.reason is not None:
                make = partial(place.reset, self._deps.log)
                await self._say_large(subscription, place.reset_key, RESET_BYTES_MAX, make)
            await self._follow_place(place, subscription)

    async def _follow_place(self, place: Place, subscription: Subscription) -> None:
        viewer, loop = place.viewer, asyncio.get_running_loop()
        told = False
        said_at = loop.time()
        while True:
            if not told and viewer.caught_up:
                told = True
                await self._say(subscription, frames.of_job(place.caught_up(), place.job_id))
            if status := viewer.over:
                return await self._say(subscription, frames.end(place.job_id, status))
            if viewer.caught_up:
                due = said_at + self._query.heartbeat_s
                await viewer.idle(max(due - loop.time(), 0.0))
                if loop.time() >= due:
                    await self._say(subscription, frames.of_job(frames.heartbeat(viewer.head), place.job_id))
                    said_at = loop.time()
                continue
            async with self._hands:
                if entries := await viewer.next(HAND_S):
                    await self._send(place, entries, subscription)
                    said_at = loop.time()

    async def _send(self, place: Place, entries: Sequence[Entry], subscription: Subscription) -> None:
        lines: list[bytes] = []
        for entry in entries:
            if self._query.inline and (ref := frames.ref_of(entry)) is not None:
                await self._send_lines(place, lines, subscription)
                lines = []
                make = partial(inlined, self._deps.log, place.job_id, entry, ref.sha256)
                await self._say_large(subscription, (place.job_id, entry.seq, False), ref.size, make)
            else:
                lines.append(entry.line)
        await self._send_lines(place, lines, subscription)

    async def _send_lines(self, place: Place, lines: list[bytes], subscription: Subscription) -> None:
        if self._query.batch and lines:
            await self._say(subscription, frames.of_job(frames.batch(lines), place.job_id))
        elif lines:
            await self._say(subscription, *lines)

    # -- the feed

    async def _follow_feed(self, cursor: str | None, subscription: Subscription) -> None:
        feed = self._app[HUB].feed
        if cursor == "now":
            start = await self._deps.log.feed_end()
        else:
            start = feed.cursor_in(cursor) if cursor else ""
        hello = frames.feed_hello(
            epoch=self._deps.log.epoch,
            resume="resumed" if cursor else "fresh",
            heartbeat_s=self._query.heartbeat_s,
            now_ms=self._deps.clock.now_ms(),
        )
        with feed.reader(self._who.tenant, start, acts=self._who.may("admin")) as reader:
            await self._say(subscription, hello)
            await self._follow_reader(reader, subscription)

    async def _follow_reader(self, reader: FeedReader, subscription: Subscription) -> None:
        loop = asyncio.get_running_loop()
        told = False
        said_at = loop.time()
        while True:
            if not told and reader.caught_up:
                told = True
                await self._say(subscription, frames.feed_caught_up(reader.position))
            chunk = await reader.next(max(said_at + self._query.heartbeat_s - loop.time(), 0.0))
            if chunk is not None:
                await self._say(subscription, frames.feed_batch(chunk.lines, reader.position))
                said_at = loop.time()
            elif loop.time() >= said_at + self._query.heartbeat_s:
                await self._say(subscription, frames.feed_heartbeat(reader.position))
                said_at = loop.time()

"""The group committer: the one task per process that writes to the log.

While one transaction is in flight the next batch gathers: under load batches grow by themselves, when idle nothing
waits. Callers get their answer after the commit; then `on_committed` hears what was recorded.

An unknown outcome is not a failure: the batch runs again, and a command found by its id answers with what was
recorded. Claims are never run again: the beat gives back what they left.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import uuid_utils

from events import crash_points
from events.batch import Claim, Claimed, Committed, Item, commit_batch, encode_early, needs_no_lock, told_by_writing
from events.catalog import AnyCommand, Expire, Fenced, Submit
from events.clock import Clock, monotonic
from events.errors import LeaseLost, LogUnavailable, Overloaded, PhaselineError, Stale, Unavailable, Unstorable
from events.job import Job
from events.log import Artifact, JobRow, Log, Transaction
from events.record import Recorded
from events.telemetry import Telemetry, refusal_of
from events.values import decode

BATCH_COMMANDS_MAX = 500
BATCH_BYTES_MAX = 4 * 1024 * 1024
QUEUE_COMMANDS_MAX = 10_000
QUEUE_BYTES_MAX = 64 * 1024 * 1024
TRANSACTION_S = 5.0  # at it the connection is dropped and the outcome is unknown
HELD_AGAIN_S = 0.5  # between two tries of commands whose rows somebody else holds
ONE_BY_ONE_S = 0.5  # then the next batch has its turn
KNOWN_MAX = 2000  # jobs; of one that was forgotten the row is locked and read
LOCKED_S = 1.0  # so long all batches lock after one that was stale: others write the same, or the clock is off
LOOK_S = 0.1  # how late somebody may hear that they waited too long
ANSWER_S = 10.0  # how long a caller waits before it hears `LogUnavailable`

Tx = TypeVar("Tx", bound=Transaction)
Claims = Sequence[tuple[Claim, "asyncio.Future[list[Claimed]]"]]

_log = logging.getLogger(__name__)


class Committer:
    """Appends commands in groups. `run` must be alive; `submit`, `execute` and `claim` may be called from any task."""

    def __init__(
        self,
        log: Log,
        on_committed: Callable[[Committed], None] = lambda _: None,
        *,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store = log
        self._on_committed = on_committed
        self._clock = clock or Clock()
        self._offset_ms = 0  # the database's clock minus ours, as the last statement found it
        self._queue: deque[_Waiting] = deque()
        self._held: list[_Waiting] = []  # of jobs whose rows somebody else holds, each job's in order
        self._held_at = 0.0  # when they are tried again
        self._waiters: dict[_Waiting, None] = {}  # in order, so that a simulated run repeats
        self._looking: asyncio.TimerHandle | None = None  # at them
        self._claims: list[tuple[Claim, asyncio.Future[list[Claimed]]]] = []
        self._bytes = 0
        self._known: dict[str, Job] = {}  # running jobs as this process left them, those written last at the end
        self._locked_until = 0.0  # monotonic: so long every batch locks
        self._work = asyncio.Event()
        self._room = asyncio.Condition()
        self._closed = False
        self._metrics = (telemetry or Telemetry()).committer
        self._metrics.waiting.set_function(lambda: self.waiting)
        self._metrics.waiting_bytes.set_function(lambda: self._bytes)

    # -- callers

    async def submit(
        self,
        command: Submit,
        *,
        tenant: str,
        job_id: str | None = None,
        source_job_id: str | None = None,
        wait_s: float = ANSWER_S,
    ) -> tuple[JobRow, bool]:
        """Makes a job; returns its row and whether an earlier submit with the same key had made it. Give a `job_id`
        from `new_job_id` when the command's own events must name it.

        Raises `KeyReused`, `Unstorable`, `LogUnavailable`, `Overloaded`.
        """
        job_id = job_id or self.new_job_id()
        if not await self._store.accepts(job_id):
            raise LogUnavailable("no partition exists for new jobs; run `phaseline db migrate` or start a worker")
        item = Item(job_id, tenant, command, source_job_id=source_job_id)
        await self._enter(item, wait_s)
        if item.row is None:  # found by its command id after an unknown outcome
            item.row = await self._store.job(item.job_id, tenant)
        if item.row is None:
            raise LogUnavailable
        return item.row, item.replayed

    async def execute(
        self,
        job_id: str,
        command: AnyCommand,
        *,
        tenant: str | None = None,
        artifacts: Sequence[Artifact] = (),
        wait_s: float = ANSWER_S,
    ) -> list[Recorded]:
        """Applies a command to a job; returns what was recorded, nothing when it was already fulfilled.

        Raises the `Refused` of `decide`, `Unstorable`, `LogUnavailable` after `wait_s`, `Overloaded`.
        """
        item = Item(job_id, tenant, command, artifacts)
        await self._enter(item, wait_s)
        return item.rows

    async def claim(
        self, worker_id: str, engines: Mapping[str, int], slots: int, *, idle: bool, wait_s: float = ANSWER_S
    ) -> list[Claimed]:
        """Takes due jobs for a worker. Raises `LeaseLost` when its lease ended, `LogUnavailable`; never run again."""
        if self._closed:
            raise LogUnavailable("this process is closing")
        future: asyncio.Future[list[Claimed]] = asyncio.get_running_loop().create_future()
        self._claims.append((Claim(worker_id, dict(engines), slots, idle), future))
        self._work.set()
        try:
            async with asyncio.timeout(wait_s):
                return await future
        except TimeoutError:
            raise LogUnavailable from None

    def new_job_id(self) -> str:
        """A UUIDv7 by the database's clock."""
        return str(uuid_utils.uuid7(nanoseconds=self._now_ms() * 1_000_000))

    def _now_ms(self) -> int:
        """The database's clock, as far as this process knows it."""
        return self._clock.now_ms() + self._offset_ms

    @property
    def waiting(self) -> int:
        """Commands not yet committed."""
        return len(self._queue) + len(self._held)

    # -- the task

    async def run(self) -> None:
        """Commits until cancelled, then fails what still waits with `LogUnavailable`."""
        try:
            while True:
                await self._wake()
                batch, claims = self._take()
                if batch or claims:
                    await self._commit(batch, claims)
                if self._held and self._held_at <= asyncio.get_running_loop().time():
                    await self._try_held()
                async with self._room:
                    self._room.notify_all()
        finally:
            self._closed = True
            self._fail_rest()

    async def _wake(self) -> None:
        """Returns when there is work, or when the held commands are due."""
        until = self._held_at if self._held else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._work.wait()

    async def _enter(self, item: Item, wait_s: float) -> None:
        if self._closed:
            raise LogUnavailable("this process is closing")
        try:
            item.texts = encode_early(item.command)
        except Unstorable as refusal:
            self._refused(item, refusal)
            raise
        size = sum(map(len, item.texts.values())) + sum(len(a.body) for a in item.artifacts) + 512
        waiting = _Waiting(item, size, until=asyncio.get_running_loop().time() + wait_s)
        if not self._has_room(size):
            await self._room_for(waiting)
        self._queue.append(waiting)
        self._bytes += size
        self._work.set()
        self._waiters[waiting] = None
        if self._looking is None:
            self._look()
        try:
            await waiting.future
        finally:
            del self._waiters[waiting]
        if item.error:
            raise item.error

    async def _room_for(self, waiting: "_Waiting") -> None:
        try:
            async with asyncio.timeout_at(waiting.until), self._room:
                await self._room.wait_for(lambda: self._has_room(waiting.size))
        except TimeoutError:
            raise self._late() from None

    def _look(self) -> None:
        """Ends the wait of those who will wait no longer. A timer for each would cost a command more than its row does."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for waiting in [one for one in self._waiters if one.until <= now]:
            waiting.abandoned = True
            if not waiting.future.done():
                waiting.future.set_exception(self._late())
        self._looking = loop.call_later(LOOK_S, self._look) if self._waiters else None

    def _late(self) -> PhaselineError:
        late = LogUnavailable() if self._has_room(0) else Overloaded()
        self._metrics.refused.labels(refusal_of(late)).inc()
        return late

    def _has_room(self, size: int) -> bool:
        waiting = len(self._queue) + len(self._held)
        return not waiting or (waiting < QUEUE_COMMANDS_MAX and self._bytes + size <= QUEUE_BYTES_MAX)

    def _take(self) -> "tuple[list[_Waiting], Claims]":
        batch: list[_Waiting] = []
        held = {waiting.item.job_id for waiting in self._held}
        size = 0
        while self._queue and len(batch) < BATCH_COMMANDS_MAX and (not batch or size < BATCH_BYTES_MAX):
            waiting = self._queue.popleft()
            if waiting.item.job_id in held:
                self._held.append(waiting)  # behind its job's earlier commands
                continue
            self._bytes -= waiting.size
            if not waiting.abandoned:
                batch.append(waiting)
                size += waiting.size
        claims = [(claim, future) for claim, future in self._claims if not future.done()]
        self._claims.clear()
        if not self._queue:
            self._work.clear()
        return batch, claims

    async def _commit(self, batch: "list[_Waiting]", claims: Claims) -> None:
        """Commits a batch. While the database does not answer nothing else could go on either, so it stays here; what
        only some of its commands stand in the way of is sorted out one by one."""
        tries = 0
        while batch or claims:
            try:
                await self._transact([waiting.item for waiting in batch], [claim for claim, _ in claims])
            except LogUnavailable as outage:
                crash_points.reached("batch.unanswered")
                _log.warning("a batch of %d commands has no answer yet: %s", len(batch), outage)
            except Exception as problem:  # whose fault it is shows one by one
                crash_points.reached("batch.taken_apart")
                _log.debug("a batch of %d commands is taken apart: %s", len(batch), problem)
                _fail_claims(claims, LogUnavailable())
                self._hold(await self._one_by_one(batch))
                return
            else:
                self._answer(batch, claims)
                return
            _fail_claims(claims, LogUnavailable())
            claims = ()
            batch = [waiting for waiting in batch if not waiting.abandoned]
            tries += 1
            if batch:
                await asyncio.sleep(random.uniform(0.02, min(1.0, 0.05 * 2**tries)))  # noqa: S311 jitter

    def _hold(self, waiting: "list[_Waiting]") -> None:
        """Keeps commands whose rows somebody else holds at the head of their jobs' lines; other jobs go on."""
        self._held += waiting
        self._bytes += sum(one.size for one in waiting)
        self._held_at = asyncio.get_running_loop().time() + HELD_AGAIN_S

    async def _try_held(self) -> None:
        trying, self._held = self._held, []
        self._bytes -= sum(one.size for one in trying)
        self._hold(await self._one_by_one([one for one in trying if not one.abandoned]))

    async def _one_by_one(self, batch: "list[_Waiting]") -> "list[_Waiting]":
        """One bad row must not fail its neighbours. Returns those to try again, each job's in their order."""
        again: list[_Waiting] = []
        untried: list[_Waiting] = []
        held: set[str] = set()
        enough = asyncio.get_running_loop().time() + ONE_BY_ONE_S
        for waiting in batch:
            if waiting.item.job_id in held:
                again.append(waiting)
                continue
            if asyncio.get_running_loop().time() > enough:
                untried.append(waiting)
                continue
            try:
                await self._transact([waiting.item], [], patient=False)
            except Unavailable:
                held.add(waiting.item.job_id)
                again.append(waiting)
                continue
            except PhaselineError as problem:
                waiting.item.error = problem
            except Exception:  # our own mistake about one command must not end the writing of all others
                about = {"job_id": waiting.item.job_id, "command": type(waiting.item.command).__name__}
                _log.exception("a command of job %s broke", waiting.item.job_id, extra=about)
                waiting.item.error = PhaselineError(
                    "this command cannot be carried out; the log of the process says why"
                )
            self._answer([waiting], ())
        return untried + again  # those nobody has tried yet go first next time

    async def _transact(self, items: Sequence[Item], claims: Sequence[Claim], *, patient: bool = True) -> None:
        began = monotonic()
        done = await self._unlocked(items, claims) if patient else None
        if done is None:
            before_ms = self._clock.now_ms()
            done, _ = await self._written(self._store.transaction(patient=patient), items, claims)
            least, most = done.now - self._clock.now_ms(), done.now - before_ms  # its clock was read in between
            self._offset_ms = min(max(self._offset_ms, least), most)
        self._learn(done)
        _reached("committed", items, claims)
        self._metrics.commit_s.observe(monotonic() - began)
        self._metrics.batch.observe(len(items) + len(claims))
        self._count(done)
        if done.events:
            self._announce(done)

    async def _unlocked(self, items: Sequence[Item], claims: Sequence[Claim]) -> Committed | None:
        """Tries to write a batch without locks; None when it needs them."""
        if not self._store.unlocks or self._locked_until > monotonic() or not needs_no_lock(items, self._known):
            return None
        try:
            done, tx = await self._written(self._store.unlocked(self._known, self._now_ms), items, claims, alone=True)
        except Stale:
            self._metrics.stale.inc()
            for item in items:
                self._known.pop(item.job_id, None)
            self._locked_until = monotonic() + LOCKED_S
            return None
        least, most = tx.drift_ms
        self._offset_ms += min(max(0, least), most)
        return done

    async def _written(
        self,
        transaction: AbstractAsyncContextManager[Tx],
        items: Sequence[Item],
        claims: Sequence[Claim],
        *,
        alone: bool = False,
    ) -> tuple[Committed, Tx]:
        for item in items:
            item.rows, item.error, item.row, item.replayed, item.found = [], None, None, False, False
        for claim in claims:
            claim.taken.clear()
            claim.error = None
        try:
            async with asyncio.timeout(TRANSACTION_S), transaction as tx:
                done = await commit_batch(tx, items, claims)
                if alone and not told_by_writing(items):
                    raise Stale
                _reached("before_commit", items, claims)
        except (TimeoutError, LogUnavailable) as lost:
            self._metrics.unknown.inc(sum(not item.doubtful for item in items))
            for item in items:
                item.doubtful = True
                self._known.pop(item.job_id, None)  # it may be written, and then the job is another
            if isinstance(lost, TimeoutError):
                raise LogUnavailable("the transaction had no answer in time; its outcome is unknown") from lost
            raise
        done.epoch = tx.epoch
        return done, tx

    def _learn(self, done: Committed) -> None:
        """Keeps what this process will write to next: jobs somebody runs."""
        for job_id, job in done.jobs.items():
            self._known.pop(job_id, None)
            if job.worker_id is not None:
                self._known[job_id] = job
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def _announce(self, done: Committed) -> None:
        try:
            self._on_committed(done)
        except Exception:  # a boundary: it is committed, and a command that failed now would be run again and doubled
            _log.exception("what was committed could not be announced")

    def _count(self, done: Committed) -> None:
        for kind, times in Counter([event.type for event in done.events]).items():
            self._metrics.events.labels(kind).inc(times)
            if kind == "started":
                for event in done.events:
                    if event.type == kind:
                        self._metrics.queue_wait_s.observe(decode(event.data)["queue_wait_ms"] / 1000)
        for event in done.ended:
            how = decode(event.data)["reason"] if event.type == "interrupted" else event.type
            self._metrics.ended.labels(how).inc()

    def _answer(self, batch: "Sequence[_Waiting]", claims: Claims) -> None:
        for waiting in batch:
            if waiting.item.doubtful:
                self._metrics.resolved.labels("before" if waiting.item.found else "now").inc()
            if waiting.item.error:
                self._refused(waiting.item, waiting.item.error)
            if not waiting.future.done():
                waiting.future.set_result(None)
        for claim, future in claims:
            if future.done():
                continue
            if claim.error:
                future.set_exception(claim.error)
            else:
                future.set_result(claim.taken)

    def _refused(self, item: Item, error: PhaselineError) -> None:
        self._metrics.refused.labels(refusal_of(error)).inc()
        if isinstance(error, LeaseLost) and isinstance(item.command, Fenced | Expire):  # an expiry by the worker itself
            self._metrics.fenced.inc()
            attempt, command, worker = item.command.attempt, type(item.command).__name__, item.command.actor
            about = {"job_id": item.job_id, "attempt": attempt, "worker": worker.removeprefix("worker:")}
            _log.warning(
                "a late %s of attempt %d of job %s was refused",
                command,
                attempt,
                item.job_id,
                extra=about | {"command": command},
            )

    def _fail_rest(self) -> None:
        for waiting in (*self._queue, *self._held):
            if not waiting.future.done():
                waiting.future.set_exception(LogUnavailable("this process is closing"))
        _fail_claims(self._claims, LogUnavailable("this process is closing"))
        self._queue.clear()
        self._held.clear()
        self._claims.clear()


def _reached(moment: str, items: Sequence[Item], claims: Sequence[Claim]) -> None:
    """Marks the crash points of whatever in this batch changes something."""
    if crash_points.on_reached is not None:
        kinds = [type(item.command).__name__.lower() for item in items if item.rows and item.error is None]
        for kind in dict.fromkeys([*kinds, *("claim" for claim in claims if claim.taken)]):
            crash_points.reached(f"{kind}.{moment}")


class _Waiting:
    """An item in the queue: its size in bytes, whom to wake, and until when they wait by the loop's clock."""

    __slots__ = ("abandoned", "future", "item", "size", "until")

    def __init__(self, item: Item, size: int, *, until: float) -> None:
        self.item = item
        self.size = size
        self.until = until
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.abandoned = False


def _fail_claims(claims: Claims, error: PhaselineError) -> None:
    for _, future in claims:
        if not future.done():
            future.set_exception(error)


def new_command_id() -> str:
    """An id for a command: running it again answers with what was recorded."""
    return str(uuid_utils.uuid4())

"""Seals what was appended, afterwards: no append waits for it, and without appends nothing is asked of the database.

Every process remembers whether it appended since it last looked; the leader of the moment seals for all. It goes through
the feed, which is complete, so an event is sealed once whoever appended it.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from events.batch import Committed
from events.clock import monotonic
from events.errors import Unavailable
from events.log import Log
from events.seal import Envelope, Range, Seal, first_head, head_after, make_seal
from events.seal_log import SEAL_EVENTS_MAX, SealLog

LOOK_EVERY_S = 600.0  # so often anyway: who appended may have died before it sealed
PAGES_MAX = 200  # seals of one pass
RESTS = 3.0  # after a page that took a second it rests three: sealing takes a quarter of one core at most

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SealerOptions:
    """How often it seals, and how long its leader's lease is."""

    seal_s: float = 10.0
    leader_s: float = 10.0


class Sealer:
    """Owns the sealing of one process. `on_sealed` is told the newest seal after each pass that led."""

    def __init__(
        self,
        log: Log,
        seals: SealLog,
        holder: str,
        options: SealerOptions | None = None,
        on_sealed: Callable[[Seal], Awaitable[None]] | None = None,
    ) -> None:
        self._leases = log
        self._store = seals
        self._holder = holder
        self._options = options or SealerOptions()
        self._on_sealed = on_sealed
        self._appended = True  # by whoever was here before
        self._looked_at = float("-inf")

    def committed(self, done: Committed) -> None:
        """This process committed something; never waits."""
        self._appended = self._appended or bool(done.events)

    def appended(self) -> None:
        """This process appended an administrative act; never waits."""
        self._appended = True

    async def run(self) -> None:
        """Seals until cancelled; a failing pass is logged and tried again."""
        while True:
            await asyncio.sleep(self._options.seal_s * random.uniform(0.8, 1.0))  # noqa: S311 jitter, so that processes spread
            if not self._appended and monotonic() - self._looked_at < LOOK_EVERY_S:
                continue
            try:
                if await self._leases.lead("seals", self._holder, self._options.leader_s):
                    await self._pass()
            except Unavailable as away:
                _log.warning("sealing waits: %s", away)
            except Exception:  # a boundary: sealing that breaks must not end the process
                _log.exception("sealing failed and is tried again")
                await asyncio.sleep(self._options.leader_s)  # lets the lease go: another process may be able to

    async def _pass(self) -> None:
        self._appended = False
        try:
            # What was sealed may have more behind it, still hidden by a transaction under way: looked at once more.
            self._appended = await self.seal() > 0 or self._appended
        except BaseException:
            self._appended = True
            raise
        self._looked_at = monotonic()
        if self._on_sealed and (last := await self._store.last_seal()):
            await self._on_sealed(last)

    async def seal(self, pages_max: int = PAGES_MAX) -> int:
        """Seals everything the feed shows, `pages_max` batches at most; returns the number of events."""
        sealed = 0
        for _ in range(pages_max):
            began = monotonic()
            found = await self._seal_page()
            if found is None:
                break
            sealed += found
            await asyncio.sleep((monotonic() - began) * RESTS)
        return sealed

    async def _seal_page(self) -> int | None:
        """None when there is nothing to seal, or another process seals."""
        last = await self._store.last_seal()
        envelopes, cursor = await self._store.sealable(last.cursor if last else "", SEAL_EVENTS_MAX)
        if not envelopes:
            return None
        ranges = await self._ranges(envelopes, last.no + 1 if last else 1)
        seal = make_seal(last, await self._store.now(), cursor, ranges)
        return seal.events if await self._store.put_seal(seal, ranges) else None

    async def _ranges(self, envelopes: Sequence[Envelope], seal: int) -> list[Range]:
        by_job: dict[str, dict[int, Envelope]] = {}
        for envelope in envelopes:
            by_job.setdefault(envelope.job_id, {})[envelope.seq] = envelope
        heads = await self._store.heads_sealed(list(by_job))
        ranges = []
        for job_id, found in sorted(by_job.items()):
            after, head = heads.get(job_id, (0, first_head(job_id)))
            through = max(found)
            if any(seq not in found for seq in range(after + 1, through)):
                # Neighbours of different transactions may be swapped in the feed, and a page may end between them.
                found |= {one.seq: one for one in await self._store.envelopes(job_id, after, through)}
            run = _following(found, after)
            if after + len(run) < through:
                _log.error("job %s: event %d is missing from the log", job_id, after + len(run) + 1)
            if run:
                leaves = b"".join(envelope.leaf for envelope in run)
                ranges.append(Range(job_id, after + 1, after + len(run), seal, leaves, head_after(head, leaves)))
        return ranges


def _following(found: dict[int, Envelope], after: int) -> list[Envelope]:
    """The events from `after` on up to the first hole."""
    run: list[Envelope] = []
    while envelope := found.get(after + len(run) + 1):
        run.append(envelope)
    return run

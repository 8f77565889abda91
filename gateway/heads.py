"""Heads of streams for whoever joins one: asked one by one while it is quiet, together when many come at once.

While one query is out those who come gather, and the next one asks for all of their jobs: ten thousand viewers that
reconnect at once cost some tens of queries. A head is always read after it was asked for.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from events.errors import LogUnavailable
from events.log import Head, Log

HEADS_MAX = 5000  # jobs a query
ENDING = "this gateway is closing or its hub has stopped"

log = logging.getLogger(__name__)


class Heads:
    """`spawn` gives a coroutine to the task group that owns this."""

    def __init__(self, store: Log, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self.reads_total = 0
        self._store = store
        self._spawn = spawn
        self._asked: dict[str, asyncio.Future[Head | LogUnavailable | None]] = {}
        self._reading = False

    async def of(self, job_id: str, tenant: str) -> Head | None:
        """The head of this tenant's job, None when there is none. Raises `LogUnavailable`."""
        answer = self._asked.get(job_id)
        if answer is None:
            answer = asyncio.get_running_loop().create_future()
            if not self._reading:
                self._spawn(self._read()).add_done_callback(self._ended)
                self._reading = True
            self._asked[job_id] = answer
        head = await asyncio.shield(answer)  # others wait for it too
        if isinstance(head, LogUnavailable):
            raise LogUnavailable(str(head)) from head
        return head if head is not None and head.tenant == tenant else None

    async def _read(self) -> None:
        try:
            while self._asked:
                asked = dict(list(self._asked.items())[:HEADS_MAX])
                for job_id in asked:
                    del self._asked[job_id]
                await self._answer(asked)
        finally:
            self._reading = False

    def _ended(self, reading: asyncio.Task[None]) -> None:
        """Who still waits for a read that was cancelled, maybe before it began, hears of it."""
        if reading.cancelled():
            self._reading = False
            asked, self._asked = self._asked, {}
            _settle(asked, {}, LogUnavailable(ENDING))

    async def _answer(self, asked: "dict[str, asyncio.Future[Head | LogUnavailable | None]]") -> None:
        heads: dict[str, Head] = {}
        failure: LogUnavailable | None = LogUnavailable(ENDING)  # unless there is an answer
        try:
            self.reads_total += 1
            heads = await self._store.heads(list(asked))
            failure = None
        except LogUnavailable as outage:
            failure = outage
        except Exception:  # a boundary: it must not end the hub, and who waits must hear
            log.exception("the heads of %d jobs could not be read", len(asked))
            failure = LogUnavailable("the heads of streams cannot be read")
        finally:
            _settle(asked, heads, failure)


def _settle(
    asked: "dict[str, asyncio.Future[Head | LogUnavailable | None]]",
    heads: dict[str, Head],
    failure: LogUnavailable | None,
) -> None:
    for job_id, answer in asked.items():
        if not answer.done():
            answer.set_result(failure or heads.get(job_id))

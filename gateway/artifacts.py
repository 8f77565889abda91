"""Reads values stored apart for open streams, which outlive an outage of the log."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from events.errors import LogUnavailable
from events.log import Log
from gateway.ring import Entry
from gateway.splice import with_results

RETRY_S = (0.1, 2.0)

_T = TypeVar("_T")


async def outlasting(read: Callable[[], Awaitable[_T]]) -> _T:
    """What `read` gives; tries again as long as the log does not answer."""
    pause_s = RETRY_S[0]
    while True:
        try:
            return await read()
        except LogUnavailable:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_S[1])


async def stored(log: Log, job_id: str, sha256: str) -> bytes | None:
    """The exact bytes, None when they are gone; tries again as long as the log does not answer."""
    return await outlasting(lambda: log.artifact(job_id, sha256))


async def inlined(log: Log, job_id: str, entry: Entry, sha256: str) -> bytes:
    """The line of an event with its stored result in place of the reference; as it is when that is gone."""
    body = await stored(log, job_id, sha256)
    return entry.line if body is None else with_results(entry.line, body)

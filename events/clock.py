"""Times. An instant is an int of milliseconds since 1970 UTC everywhere inside; RFC 3339 on the wire.

Integers compare and store alike on both databases and lose nothing: the wire's precision is the millisecond.
"""

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST_MS = 253_402_300_799_999  # the last instant RFC 3339 can write


class Clock:
    """The only reader of this machine's time. Pass another to tests that need one."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC; may jump, so never used for leases or deadlines of others."""
        return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Seconds that never run backwards, by the running loop: `time.monotonic()`, which the processes of one machine
    share, unless a test runs a loop of its own."""
    return asyncio.get_running_loop().time()


def rfc3339(instant_ms: int) -> str:
    """`2026-11-24T08:00:00.000Z`."""
    return f"{_second(instant_ms // 1000)}.{instant_ms % 1000:03d}Z"


@lru_cache(maxsize=512)  # the events of a stream are of few seconds, and this is half of what a line costs
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def parse_instant(text: Any) -> int:
    """Milliseconds of an RFC 3339 time with an offset, or of an int already in milliseconds.

    Raises `ValueError` for anything else: a time without an offset would mean another instant elsewhere, one outside
    1970 to 9999 could not be written again.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    if not isinstance(text, str):
        raise ValueError("expected an RFC 3339 time such as 2026-11-24T08:00:00Z")
    if not _RFC3339.fullmatch(text):
        raise ValueError("expected an RFC 3339 time with an offset, such as 2026-11-24T08:00:00Z")
    moment = datetime.fromisoformat(text.upper())
    instant = (moment - _EPOCH) // timedelta(milliseconds=1)
    if not 0 <= instant <= LATEST_MS:
        raise ValueError("a time must lie between 1970 and 9999, in UTC")
    return instant


Instant = Annotated[
    int,
    BeforeValidator(parse_instant),
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

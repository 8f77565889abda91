"""Port: spans of one job's way through the processes, for OpenTelemetry (docs/monitoring.md). Off unless asked for.

A trace is handed on as W3C `traceparent`: by a client's header, in the job's `submitted` event, which every worker and
viewer can read, and to nobody else. RabbitMQ's tickets carry none: a ticket says that some job is due, not which.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal, Protocol

from events.log import Log
from events.values import decode

Kind = Literal["server", "producer", "consumer", "internal"]
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Span(Protocol):
    """Something that takes time."""

    @property
    def traceparent(self) -> str | None:
        """What makes another span its child; None when there is no trace."""

    def end(self, failure: str | None = None) -> None:
        """It is over, once; `failure` says what went wrong."""


class Traces(Protocol):
    """Begins spans. Never waits and never raises: what a collector does not take in time is dropped."""

    @property
    def on(self) -> bool:
        """False when every span is nothing: then nothing is read or written for the sake of a trace."""

    def begin(
        self,
        name: str,
        parent: str | None,
        kind: Kind = "internal",
        attributes: Mapping[str, str | int] | None = None,
        *,
        began_ms: int | None = None,
    ) -> Span:
        """A span that began now, or at an instant in ms; without a parent the first of a trace."""


class _NoSpan:
    traceparent = None

    def end(self, failure: str | None = None) -> None:
        pass


NO_SPAN: Final[Span] = _NoSpan()


class NoTraces:
    """The default."""

    on = False

    def begin(
        self,
        name: str,  # noqa: ARG002 nothing is traced
        parent: str | None,  # noqa: ARG002
        kind: Kind = "internal",  # noqa: ARG002
        attributes: Mapping[str, str | int] | None = None,  # noqa: ARG002
        *,
        began_ms: int | None = None,  # noqa: ARG002
    ) -> Span:
        return NO_SPAN


def traceparent_in(header: str | None) -> str | None:
    """A header's trace, None when it is none: as W3C Trace Context §3.2.2 has it, version 00."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None


async def trace_of(log: Log, job_id: str) -> str | None:
    """The trace a job was submitted in. Raises `LogUnavailable`."""
    page = await log.read(job_id, 0, limit=1)
    return traceparent_in(decode(page[0].data).get("traceparent")) if page else None

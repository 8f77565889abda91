"""The last span of an event's way: from its commit to the write of its frame, for viewers who waited for it."""

from collections.abc import Sequence

from events.clock import parse_instant
from events.errors import LogUnavailable
from events.tracing import trace_of
from gateway.deps import Deps
from gateway.lag import TIMESTAMP, TIMESTAMP_BYTES
from gateway.ring import Entry


class FrameTrace:
    """Of one stream. `parent` is the trace its job was submitted in."""

    def __init__(self, deps: Deps, job_id: str, parent: str) -> None:
        self._traces = deps.telemetry.traces
        self._since_ms = deps.clock.now_ms()
        self._job_id = job_id
        self._parent = parent

    def sent(self, entries: Sequence[Entry]) -> None:
        """These were written to the socket, together. What was there before the stream is no news."""
        if not entries:
            return
        began_ms = _at(entries[-1].line)
        if began_ms >= self._since_ms:
            about: dict[str, str | int] = {
                "phaseline.job_id": self._job_id,
                "phaseline.seq": entries[-1].seq,
                "phaseline.events": len(entries),
            }
            self._traces.begin("frame", self._parent, "producer", about, began_ms=began_ms).end()


async def frame_trace(deps: Deps, job_id: str) -> FrameTrace | None:
    """None when traces are off, or the job is in none."""
    if not deps.telemetry.traces.on:
        return None
    try:
        parent = await trace_of(deps.log, job_id)
    except LogUnavailable:
        return None  # a stream is worth more than its trace
    return FrameTrace(deps, job_id, parent) if parent else None


def _at(line: bytes) -> int:
    start = line.find(TIMESTAMP) + len(TIMESTAMP)
    return parse_instant(line[start : start + TIMESTAMP_BYTES].decode())

"""The spans of one attempt: its wait for a worker, itself, and the phase it is in. Nothing when traces are off."""

from events.job import Job
from events.log import Log
from events.record import Recorded
from events.tracing import NO_SPAN, Kind, Span, Traces, traceparent_in
from events.values import decode


class AttemptTrace:
    """One after another, told by what the engine says."""

    def __init__(self, traces: Traces, job: Job, first: Recorded | None = None) -> None:
        self._traces = traces
        self._about: dict[str, str | int] = {
            "phaseline.job_id": job.id,
            "phaseline.engine": job.engine,
            "phaseline.attempt": job.attempt,
        }
        self._phase = NO_SPAN
        self._attempt = NO_SPAN
        if first is not None and (parent := traceparent_in(decode(first.data).get("traceparent"))):
            if job.attempt == 1:
                queue: dict[str, str | int] = {
                    "messaging.system": "rabbitmq",
                    "messaging.destination.name": f"phaseline.tickets.{job.engine}",
                }
                since = max(first.at, job.not_before or 0)
                self._begin("wait for a worker", parent, queue, began_ms=since, kind="consumer").end()
            self._attempt = self._begin(f"attempt {job.engine}", parent, {})

    def phase(self, name: str) -> None:
        """The engine entered this phase."""
        if self._attempt is not NO_SPAN:
            self._phase.end()
            self._phase = self._begin(f"phase {name}", self._attempt.traceparent, {"phaseline.phase": name})

    def end(self, failure: str | None = None) -> None:
        """The attempt ended. Called again, it changes nothing."""
        self._phase.end(failure)
        self._attempt.end(failure)
        self._phase = self._attempt = NO_SPAN

    def _begin(
        self,
        name: str,
        parent: str | None,
        more: dict[str, str | int],
        *,
        began_ms: int | None = None,
        kind: Kind = "internal",
    ) -> Span:
        return self._traces.begin(name, parent, kind, self._about | more, began_ms=began_ms)


async def attempt_trace(traces: Traces, log: Log, job: Job) -> AttemptTrace:
    """That of this attempt, in the trace its job was submitted in. Raises `LogUnavailable`."""
    page = await log.read(job.id, 0, limit=1) if traces.on else []
    return AttemptTrace(traces, job, page[0] if page else None)

"""After a commit: tell whoever listens. Everything here is best effort; sequence and sweeper repair what is lost."""

from events.batch import Committed
from events.bus import Bus
from events.tracing import NoTraces, Traces, traceparent_in
from events.values import decode, encode


class Announcer:
    """Publishes what a commit recorded: hints for viewers, tickets for due jobs, control words for workers.

    Pass it to the committer as `on_committed`; it never waits and never raises.
    """

    def __init__(self, bus: Bus, traces: Traces | None = None) -> None:
        self._bus = bus
        self._traces = traces or NoTraces()

    def __call__(self, committed: Committed) -> None:
        due: dict[str, int] = {}
        for job in committed.jobs.values():
            if job.status == "queued" and job.due_at() <= committed.now:
                due[job.engine] = due.get(job.engine, 0) + 1
        if self._traces.on:
            self._trace(committed)
        for engine, count in due.items():
            self._bus.publish_tickets(engine, count)  # first: somebody waits for the job to begin
        self._bus.publish(committed.epoch, [recorded.line() for recorded in committed.events])
        for job_id, (worker_id, attempt) in committed.taken_from.items():
            self._bus.send_control(worker_id, encode({"op": "stop", "job_id": job_id, "attempt": attempt}))
        for recorded in committed.events:
            job_or_none = committed.jobs.get(recorded.job_id)
            if recorded.type == "cancel_requested" and job_or_none and job_or_none.worker_id:
                grace_s = max(((job_or_none.cancel_at or committed.now) - committed.now) / 1000, 0.0)
                words = {"op": "cancel", "job_id": job_or_none.id, "attempt": job_or_none.attempt, "grace_s": grace_s}
                self._bus.send_control(job_or_none.worker_id, encode(words))

    def _trace(self, committed: Committed) -> None:
        """A span for the ticket of each new job: the moment it is handed over."""
        for recorded in committed.events:
            if recorded.type == "submitted" and (job := committed.jobs.get(recorded.job_id)):
                parent = traceparent_in(decode(recorded.data).get("traceparent"))
                queue = {
                    "messaging.system": self._bus.name,
                    "messaging.destination.name": f"phaseline.tickets.{job.engine}",
                }
                if parent and job.due_at() <= committed.now:
                    self._traces.begin("publish ticket", parent, "producer", {"phaseline.job_id": job.id} | queue).end()

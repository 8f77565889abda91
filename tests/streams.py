"""One job's life without a database: commands decided and recorded as the committer does it."""

from typing import Any

from hypothesis import strategies as st

from events.batch import job_row
from events.catalog import (
    AnyCommand,
    AttemptError,
    Checkpoint,
    Fail,
    Finish,
    Log,
    Outcome,
    Partial,
    Release,
    Report,
    Start,
    Stop,
    Submitted,
)
from events.committer import new_command_id
from events.job import Job, decide, record
from events.log import JobRow
from events.record import Recorded, encode_event
from tests.builders import a_cancel, a_reopen, a_submit, an_expiry, progress

JOB = "01a20ca3-8f44-71e6-954e-9ff94174bd64"


class Stream:
    """One job under commands, as the committer would run them."""

    def __init__(self, **submitted: Any) -> None:
        self.job: Job | None = None
        self.rows: list[Recorded] = []
        self.now = 1_000_000
        self.apply(a_submit(**submitted))

    def apply(self, command: AnyCommand, after_ms: int = 1) -> list[str]:
        self.now += after_ms
        events = decide(self.job, command, self.now)
        self.job, rows = record(
            self.job, events, map(encode_event, events), job_id=JOB, tenant="default", actor=command.actor,
            command_id=command.command_id, at=self.now,
        )  # fmt: skip
        self.rows += rows
        return [event.type for event in events]

    @property
    def state(self) -> Job:
        assert self.job is not None
        return self.job

    def start(self, lease: str = "L") -> list[str]:
        return self.apply(a_start(lease), after_ms=700_000)

    def fence(self) -> dict[str, Any]:
        return {
            "command_id": new_command_id(),
            "actor": "worker:w",
            "attempt": self.state.attempt,
            "lease_id": self.state.lease_id or "L",
        }

    def fail(self, *, retryable: bool = True, draw: float = 0.5, retry_after_s: float | None = None) -> list[str]:
        error = AttemptError(type="E", message="m", code="engine_error", retryable=retryable)
        return self.apply(Fail(**self.fence(), error=error, draw=draw, retry_after_s=retry_after_s))

    def finish(self, value: Any = 1) -> list[str]:
        return self.apply(Finish(**self.fence(), outcome=Outcome(value=value)))

    @property
    def row(self) -> JobRow:
        submitted = self.rows[0].event()
        assert isinstance(submitted, Submitted)
        return job_row(self.state, submitted)


def a_start(lease: str = "L") -> Start:
    """A claim."""
    return Start(command_id=new_command_id(), actor="worker:w", worker_id="w", lease_id=lease)


PARTIAL = Partial(phase="collecting_data", name="plan", value=1)
WORDS = st.sampled_from(
    ["start", "report", "mixed", "checkpoint", "fail", "fail_final", "finish", "stop", "drain", "lost", "attempt_timeout",
     "stall_timeout", "total_timeout", "start_timeout", "cancel", "force", "cancel_grace", "reopen", "stale"]
)  # fmt: skip


def play(stream: Stream, word: str, after_ms: int) -> None:
    """Applies the command of this word. Raises its `Refused`."""
    fence = stream.fence()
    error = AttemptError(type="E", message="m", code="engine_error", retryable=word != "fail_final")
    checkpoint = Checkpoint(phase="collecting_data", output=1, digest="d", duration_ms=1)
    made: dict[str, AnyCommand] = {
        "start": a_start(f"L{stream.now}"),
        "report": Report(**fence, said=(progress(30.0, "finalizing"), progress(10.0))),
        "mixed": Report(
            **fence, said=(checkpoint, progress(20.0), Log(level="info", message="so far"), checkpoint, PARTIAL)
        ),
        "checkpoint": Report(**fence, said=(checkpoint,)),
        "fail": Fail(**fence, error=error, draw=0.1),
        "fail_final": Fail(**fence, error=error, draw=0.1),
        "finish": Finish(**fence, said=(progress(90.0), PARTIAL), outcome=Outcome(value=None)),
        "stop": Stop(**fence),
        "drain": Release(**fence, reason="drained"),
        "cancel": a_cancel(),
        "force": a_cancel("force"),
        "reopen": a_reopen(),
        "stale": Finish(**fence | {"lease_id": "stale"}, outcome=Outcome()),
    }
    stream.apply(made.get(word) or an_expiry(stream.state.attempt, word), after_ms)

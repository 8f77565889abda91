"""How an attempt can end, and the command that says so. PURE."""

from dataclasses import dataclass
from typing import Any, Literal, assert_never

from events.catalog import AttemptError, Fail, Finish, Outcome, Release, Said, Stop
from events.job import Job, timeout_message

# Why the parent ended the child. `lost`: the attempt is not ours any more, nothing of it may be said.
Why = Literal["attempt_timeout", "stall_timeout", "total_timeout", "cancelled", "drained", "unusable", "lost"]


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: by a code or by a signal's name."""

    code: int | None = None
    signal: str | None = None

    @property
    def sentence(self) -> str:
        """What a person reads in the job's stream."""
        how = f"was ended by {self.signal}" if self.signal else f"exited with code {self.code}"
        hint = "; the system may be short of memory" if self.signal == "SIGKILL" else ""
        return f"the engine's process {how}{hint}"


@dataclass(frozen=True, slots=True)
class Returned:
    """The engine returned: the exact JSON bytes of its result."""

    body: bytes
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Raised:
    """The engine raised."""

    error: AttemptError
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """The engine obeyed a cancel or a drain."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The child ended without a word, by itself or because we ended it."""

    exit: Exit


Ending = Returned | Raised | Stopped | Gone


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else counts: why we ended the child (if we did) and the words for it, what was asked, the best result."""

    fence: dict[str, Any]
    draw: float
    why: Why | None = None
    problem: str = ""
    cancelled: bool = False
    draining: bool = False
    best: Outcome = Outcome()


def command_for(ending: Ending, job: Job, seen: Circumstances) -> Fail | Release | Stop:
    """What to say of every ending but a result: success wins over whatever else happened (see `finish`)."""
    if seen.cancelled:
        return Stop(**seen.fence, best=seen.best)
    if seen.why == "drained" or (isinstance(ending, Stopped) and seen.draining):
        return Release(**seen.fence, reason="drained", best=seen.best)
    retry_after_s = ending.retry_after_s if isinstance(ending, Raised) and seen.why is None else None
    return Fail(
        **seen.fence,
        error=_error(ending, job, seen),
        draw=seen.draw,
        retry_after_s=retry_after_s,
        best=seen.best,
    )


def finish(fence: dict[str, Any], outcome: Outcome, said: tuple[Said, ...] = ()) -> Finish:
    """The engine's result, whatever was asked meanwhile, behind what it said last."""
    return Finish(**fence, outcome=outcome, said=said)


def _error(ending: Ending, job: Job, seen: Circumstances) -> AttemptError:
    match seen.why:
        case "attempt_timeout" | "stall_timeout" | "total_timeout" as cause:
            limit_s = {"attempt_timeout": job.attempt_s, "stall_timeout": job.stall_s}.get(cause, job.total_s)
            message = timeout_message(cause, limit_s)
            return AttemptError(type="Timeout", message=message, code=cause, retryable=cause != "total_timeout")
        case "unusable":
            return AttemptError(type="Unusable", message=seen.problem, code="engine_error", retryable=False)
        case _:
            return _own_error(ending)


def _own_error(ending: Ending) -> AttemptError:
    match ending:
        case Raised(error=error):
            return error
        case Gone(exit=left):
            return AttemptError(
                type="ProcessEnded",
                message=left.sentence,
                code="killed",
                retryable=True,
                exit_code=left.code,
                signal=left.signal,
            )
        case Stopped():
            message = "the engine raised Cancelled although nobody asked it to stop"
            return AttemptError(type="Cancelled", message=message, code="engine_error", retryable=True)
        case Returned():
            raise ValueError("a result is finished, never failed")
        case _:
            assert_never(ending)

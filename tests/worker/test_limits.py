"""Which limit of an attempt passes first, and what is said of each ending."""

from dataclasses import replace
from typing import Any

import pytest

from engine_worker.endings import Circumstances, Exit, Gone, Raised, Stopped, command_for
from engine_worker.limits import Limits
from events.catalog import AttemptError, Fail, Outcome, Release, Stop, Submitted
from events.job import Job, evolve
from tests.builders import a_submit

FENCE: dict[str, Any] = {"command_id": "c", "actor": "worker:w", "attempt": 1, "lease_id": "l"}
BOOM = AttemptError(type="ValueError", message="boom", code="engine_error", retryable=True)


def a_job(**changes: Any) -> Job:
    """A job that waited a second for its attempt."""
    submitted = a_submit().submitted
    assert isinstance(submitted, Submitted)
    job = evolve(None, submitted, job_id="j", tenant="t", at=1_000)
    return replace(job, attempt_at=2_000, **{"attempt_s": None} | changes)


def limit(job: Job, *, now: float = 100.0, busy: bool = False, cancel_at: float | None = None) -> Any:
    """The first limit of an attempt claimed at 100."""
    limits = Limits(job, 100.0)
    if cancel_at is not None:
        limits.cancel(cancel_at)
    return limits.next(now, busy=busy)


def test_an_attempt_may_be_without_limits():
    assert limit(a_job()) is None
    assert Limits(a_job(), 100.0).deadline is None


def test_the_earliest_limit_counts():
    job = a_job(attempt_s=10.0, total_s=10.0, stall_s=30.0)
    assert limit(job) == ("total_timeout", 109.0)  # the second in the queue counts for the whole job
    assert limit(replace(job, total_s=None)) == ("attempt_timeout", 110.0)
    assert limit(job, cancel_at=101.0) == ("cancelled", 101.0)
    assert Limits(job, 100.0).deadline == 109.0


def test_silence_counts_from_the_last_word_and_not_while_the_log_owes_an_answer():
    job = a_job(stall_s=5.0)
    limits = Limits(job, 100.0)
    limits.said(103.0)
    assert limits.next(104.0, busy=False) == ("stall_timeout", 108.0)
    assert limits.next(120.0, busy=True) == ("stall_timeout", 125.0)


def test_of_two_cancels_the_earlier_end_counts():
    limits = Limits(a_job(), 100.0)
    assert limits.cancel(110.0)
    assert not limits.cancel(105.0)
    assert not limits.cancel(120.0)
    assert limits.next(100.0, busy=False) == ("cancelled", 105.0)


GONE = Gone(Exit(signal="SIGSEGV"))


@pytest.mark.parametrize(
    "ending, circumstances, expected",
    [
        (Raised(BOOM, 7.0), {}, Fail(**FENCE, error=BOOM, draw=0.5, retry_after_s=7.0)),
        (Raised(BOOM), {"cancelled": True}, Stop(**FENCE)),
        (GONE, {"cancelled": True, "why": "cancelled"}, Stop(**FENCE)),
        (Stopped(), {"cancelled": True}, Stop(**FENCE)),
        (Stopped(), {"draining": True}, Release(**FENCE, reason="drained")),
        (GONE, {"draining": True, "why": "drained"}, Release(**FENCE, reason="drained")),
        (Raised(BOOM), {"draining": True}, Fail(**FENCE, error=BOOM, draw=0.5)),
    ],
)
def test_what_is_said_of_an_ending(ending: Any, circumstances: dict[str, Any], expected: Any):
    assert command_for(ending, a_job(), Circumstances(FENCE, 0.5, **circumstances)) == expected


@pytest.mark.parametrize(
    "ending, circumstances, code, retryable, message",
    [
        (GONE, {}, "killed", True, "the engine's process was ended by SIGSEGV"),
        (Stopped(), {}, "engine_error", True, "the engine raised Cancelled although nobody asked it to stop"),
        (GONE, {"why": "attempt_timeout"}, "attempt_timeout", True, "the attempt took longer than 3 s"),
        (GONE, {"why": "stall_timeout"}, "stall_timeout", True, "the engine said nothing for 2 s"),
        (GONE, {"why": "total_timeout"}, "total_timeout", False, "the job took longer than 4 s in all"),
        (GONE, {"why": "unusable", "problem": "too much"}, "engine_error", False, "too much"),
        (Raised(BOOM), {"why": "attempt_timeout"}, "attempt_timeout", True, "the attempt took longer than 3 s"),
    ],
)
def test_an_end_without_a_word_is_explained(
    ending: Any, circumstances: dict[str, Any], code: str, retryable: bool, message: str
):
    best = Outcome(value=1)
    job = a_job(attempt_s=3.0, stall_s=2.0, total_s=4.0)
    command = command_for(ending, job, Circumstances(FENCE, 0.5, best=best, **circumstances))
    assert isinstance(command, Fail)
    assert command.best == best
    assert (command.error.code, command.error.retryable, command.error.message) == (code, retryable, message)

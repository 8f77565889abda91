"""The lifecycle, without a database: what each command makes of a job in each status."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.catalog import (
    EVENT_TYPES,
    FINAL,
    TERMINAL,
    Checkpoint,
    Finish,
    Outcome,
    Release,
    Report,
    Start,
    Stop,
)
from events.errors import LeaseLost, Refused, StillAlive, UnknownJob, WrongStatus
from events.job import TRANSITIONS, decide, fold
from tests.builders import PHASES, a_cancel, a_reopen, an_expiry, progress, story
from tests.streams import WORDS, Stream, a_start, play

ROOT = Path(__file__).parents[2]


def test_a_job_that_goes_well_is_submitted_started_moves_and_completes() -> None:
    stream = Stream()
    stream.start()
    stream.apply(Report(**stream.fence(), said=(progress(25.0),)))
    stream.finish({"answer": 42})
    assert story(stream.rows) == [(1, "submitted"), (2, "started"), (3, "progress"), (4, "progress"), (5, "complete")]
    assert (stream.state.status, stream.state.progress, stream.state.phase) == ("completed", 100.0, "finalizing")


def test_a_hundred_percent_comes_once_even_when_the_engine_said_it() -> None:
    stream = Stream()
    stream.start()
    stream.apply(Report(**stream.fence(), said=(progress(100.0, "finalizing"),)))
    assert stream.finish() == ["complete"]


def test_failures_are_retried_with_full_jitter_until_max_attempts() -> None:
    stream = Stream(max_attempts=3)
    for expected, wait_ms in ((["retry"], 2500), (["retry"], 5000), (["error"], None)):
        stream.start()
        assert stream.fail(draw=0.5) == expected
        if wait_ms is not None:
            assert stream.state.not_before == stream.now + wait_ms
    assert (stream.state.status, stream.state.failures, stream.state.attempt) == ("failed", 3, 3)


def test_the_backoff_never_exceeds_ten_minutes_and_retry_after_is_honoured() -> None:
    stream = Stream(max_attempts=100)
    for _ in range(20):
        stream.start()
        stream.fail(draw=0.999999)
        assert stream.state.not_before is not None
        assert stream.state.not_before - stream.now <= 600_000
    stream.start()
    stream.fail(retry_after_s=42)
    assert stream.state.not_before == stream.now + 42_000


def test_a_failure_that_is_not_retryable_is_final() -> None:
    stream = Stream()
    stream.start()
    assert stream.fail(retryable=False) == ["error"]


def test_losses_count_apart_from_failures_and_the_third_is_final() -> None:
    stream = Stream(max_attempts=1)
    for expected in ("interrupted", "interrupted", "error"):
        stream.start()
        assert stream.apply(an_expiry(stream.state.attempt)) == [expected]
    assert (stream.state.status, stream.state.failures, stream.state.losses) == ("failed", 0, 3)
    assert stream.rows[-1].event().code == "lost"  # type: ignore[union-attr]


def test_a_drained_attempt_counts_nowhere_and_is_due_at_once() -> None:
    stream = Stream()
    stream.start()
    assert stream.apply(Release(**stream.fence(), reason="drained")) == ["interrupted"]
    assert (stream.state.failures, stream.state.losses, stream.state.due_at() <= stream.now) == (0, 0, True)


def test_a_stale_worker_changes_nothing() -> None:
    stream = Stream()
    stream.start(lease="old")
    stale = stream.fence()
    stream.apply(an_expiry(1))
    stream.start(lease="new")
    for command in (
        Report(**stale, said=(progress(),)),
        Finish(**stale, outcome=Outcome()),
        Stop(**stale),
        Release(**stale, reason="released"),
    ):
        with pytest.raises(LeaseLost):
            stream.apply(command)
    assert story(stream.rows)[-1] == (4, "started")


def test_cancelling_a_queued_job_ends_it_and_repeating_is_no_event() -> None:
    stream = Stream()
    assert stream.apply(a_cancel(reason="no need")) == ["cancelled"]
    assert stream.apply(a_cancel()) == []


@pytest.mark.parametrize("end", ["fail", "stop", "release", "lost", "cancel_grace"])
def test_after_a_cancel_any_end_but_complete_is_cancelled(end: str) -> None:
    stream = Stream()
    stream.start()
    assert stream.apply(a_cancel(reason="enough", grace_s=30)) == ["cancel_requested"]
    assert stream.apply(a_cancel()) == []
    ends: dict[str, Callable[[], list[str]]] = {
        "fail": stream.fail,
        "stop": lambda: stream.apply(Stop(**stream.fence(), best=Outcome(value="best"))),
        "release": lambda: stream.apply(Release(**stream.fence(), reason="drained")),
        "lost": lambda: stream.apply(an_expiry(1)),
        "cancel_grace": lambda: stream.apply(an_expiry(1, "cancel_grace"), after_ms=30_001),
    }
    assert ends[end]() == ["cancelled"]
    assert stream.rows[-1].event().reason == "enough"  # type: ignore[union-attr]


def test_success_that_commits_before_the_kill_wins_over_a_cancel() -> None:
    stream = Stream()
    stream.start()
    stream.apply(a_cancel())
    assert stream.finish()[-1] == "complete"


def test_asking_again_with_less_grace_shortens_it_and_keeps_the_reason() -> None:
    stream = Stream()
    stream.start()
    assert stream.apply(a_cancel(reason="enough", grace_s=30)) == ["cancel_requested"]
    assert stream.apply(a_cancel(grace_s=40)) == []
    assert stream.apply(a_cancel(grace_s=2), after_ms=1000) == ["cancel_requested"]
    assert stream.apply(an_expiry(1, "cancel_grace"), after_ms=2001) == ["cancelled"]
    assert stream.rows[-1].event().reason == "enough"  # type: ignore[union-attr]


def test_force_cancels_a_running_job_at_once_and_fences_its_worker() -> None:
    stream = Stream()
    stream.start()
    fence = stream.fence()
    assert stream.apply(a_cancel("force")) == ["cancelled"]
    with pytest.raises(LeaseLost):
        stream.apply(Finish(**fence, outcome=Outcome()))


@pytest.mark.parametrize(
    ("cause", "timeouts", "status", "expected"),
    [
        ("attempt_timeout", {"attempt_s": 1}, "running", "retry"),
        ("stall_timeout", {"stall_s": 1}, "running", "retry"),
        ("total_timeout", {"total_s": 1}, "running", "error"),
        ("total_timeout", {"total_s": 1}, "queued", "error"),
        ("start_timeout", {"start_s": 1}, "queued", "error"),
    ],
)
def test_a_timeout_is_judged_again_when_it_is_applied(
    cause: str, timeouts: dict[str, float], status: str, expected: str
) -> None:
    stream = Stream(timeouts=timeouts)
    if status == "running":
        stream.apply(Start(command_id="c", actor="worker:w", worker_id="w", lease_id="L"))
    with pytest.raises(StillAlive):
        stream.apply(an_expiry(stream.state.attempt, cause), after_ms=500)
    assert stream.apply(an_expiry(stream.state.attempt, cause), after_ms=1000) == [expected]
    assert cause in stream.rows[-1].data


@pytest.mark.parametrize("cause", ["start_timeout", "total_timeout"])
def test_limits_count_from_when_the_job_could_first_start(cause: str) -> None:
    due = 9_000_000
    stream = Stream(not_before=due, timeouts={"start_s": 60.0, "total_s": 60.0})
    with pytest.raises(StillAlive):
        stream.apply(an_expiry(0, cause), after_ms=due + 59_999 - stream.now)
    assert stream.apply(an_expiry(0, cause), after_ms=1) == ["error"]
    assert stream.apply(a_reopen(), after_ms=5_000) == ["reopened"]  # could start at once
    with pytest.raises(StillAlive):
        stream.apply(an_expiry(0, cause), after_ms=59_999)
    assert stream.apply(an_expiry(0, cause), after_ms=1) == ["error"]


def test_the_wait_for_a_retry_counts_in_the_total_and_is_none_for_a_start() -> None:
    due = 9_000_000
    stream = Stream(not_before=due, timeouts={"start_s": 60.0, "total_s": 600.0})
    stream.apply(a_start(), after_ms=due - stream.now)
    stream.fail(retry_after_s=3600.0)
    with pytest.raises(StillAlive):
        stream.apply(an_expiry(1, "start_timeout"), after_ms=due + 599_999 - stream.now)
    with pytest.raises(StillAlive):
        stream.apply(an_expiry(1, "total_timeout"), after_ms=0)
    assert stream.apply(an_expiry(1, "total_timeout"), after_ms=1) == ["error"]


def test_a_total_timeout_keeps_the_best_its_worker_knew() -> None:
    stream = Stream(timeouts={"total_s": 1})
    stream.start()
    best = Outcome(value={"plan": 1})
    stream.apply(an_expiry(1, "total_timeout").model_copy(update={"best": best}))
    assert stream.rows[-1].event().results == {"plan": 1}  # type: ignore[union-attr]


def test_reopening_starts_over_under_the_same_id() -> None:
    stream = Stream(max_attempts=1, timeouts={"total_s": 1000.0})
    stream.start()
    stream.fail()
    assert stream.apply(a_reopen(), after_ms=5_000_000) == ["reopened"]
    assert (stream.state.status, stream.state.failures, stream.state.opened_at) == ("queued", 0, stream.now)
    stream.start()
    assert stream.state.attempt == 2
    stream.finish()
    with pytest.raises(WrongStatus, match="completed"):
        stream.apply(a_reopen())


def test_a_recorded_phase_is_reused_and_progress_begins_at_its_end() -> None:
    stream = Stream()
    stream.start()
    checkpoint = Checkpoint(phase="collecting_data", output={"n": 1}, digest="d", duration_ms=1)
    stream.apply(Report(**stream.fence(), said=(progress(0.0), checkpoint, progress(25.0, "finalizing"))))
    stream.apply(an_expiry(1))
    stream.start()
    started = stream.rows[-1].event()
    assert (started.reused_phases, started.progress) == (("collecting_data",), 25.0)  # type: ignore[union-attr]


def test_progress_never_falls_within_an_attempt() -> None:
    stream = Stream()
    stream.start()
    stream.apply(Report(**stream.fence(), said=(progress(20.0), progress(5.0), progress(22.0))))
    assert [row.event().progress for row in stream.rows[-3:]] == [20.0, 20.0, 22.0]  # type: ignore[union-attr]


def test_a_command_for_no_job_is_refused() -> None:
    with pytest.raises(UnknownJob):
        decide(None, a_cancel(), 0)


def test_higher_priority_goes_first_unless_it_came_a_minute_later_a_class() -> None:
    low, normal, high = (Stream(priority=priority).state for priority in ("low", "normal", "high"))
    assert high.rank < normal.rank < low.rank
    assert normal.rank - high.rank == 60_000


@given(st.lists(st.tuples(WORDS, st.integers(1, 400_000)), max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_sequence_of_commands_leaves_the_table_and_the_fold_is_the_state(said: list[tuple[str, int]]) -> None:
    stream = Stream(timeouts={"start_s": 300.0, "attempt_s": 300.0, "total_s": 2000.0, "stall_s": 60.0})
    for word, after_ms in said:
        before = len(stream.rows)
        try:
            play(stream, word, after_ms)
        except Refused:
            assert len(stream.rows) == before
    assert [row.seq for row in stream.rows] == list(range(1, len(stream.rows) + 1))
    assert fold(stream.rows) == stream.state
    types = [row.type for row in stream.rows]
    for earlier, later in pairwise(types):
        assert earlier not in TERMINAL or later == "reopened"
    assert sum(kind in TERMINAL for kind in types) == types.count("reopened") + (stream.state.status in FINAL)
    assert stream.state.failures <= stream.state.max_attempts
    assert stream.state.losses <= stream.state.max_losses


def test_every_event_type_is_in_the_table() -> None:
    assert {kind for row in TRANSITIONS.values() for kind in row} == set(EVENT_TYPES)


def test_the_picture_in_the_docs_is_the_table() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawn = set(re.findall(r"^    (\S+) --> (\S+): (\w+)$", text, re.MULTILINE))
    table = {
        (status or "[*]", to, kind) for status, row in TRANSITIONS.items() for kind, to in row.items() if status != to
    }
    assert drawn == table


def test_the_builders_phases_end_at_a_hundred() -> None:
    assert PHASES[-1].until == 100

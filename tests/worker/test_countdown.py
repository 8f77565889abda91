"""The life of an attempt, told by the engine that does a little of everything."""

from typing import Any

from events.catalog import Complete, Error, Progress, Retry
from events.record import Recorded
from tests.builders import story
from tests.worker.scene import Scene


def told(stream: list[Recorded]) -> list[tuple[int, str, Any]]:
    """Sequence and type, and of progress its percent and phase."""
    rows: list[tuple[int, str, Any]] = []
    for row in stream:
        event = row.event()
        rows.append((row.seq, row.type, (event.progress, event.phase) if isinstance(event, Progress) else None))
    return rows


async def test_a_countdown_is_told_in_order_from_submit_to_complete(scene: Scene):
    async with scene.worker():
        stream = await scene.end(await scene.submit("countdown", steps=5, step_s=0.0))
    assert told(stream) == [
        (1, "submitted", None),
        (2, "started", None),
        (3, "progress", (0.0, "initializing")),
        (4, "partial", None),
        (5, "progress", (10.0, "collecting_data")),
        (6, "partial", None),
        (7, "progress", (25.0, "counting")),
        (8, "partial", None),
        (9, "progress", (50.0, "evaluating")),
        (10, "partial", None),
        (11, "progress", (90.0, "finalizing")),
        (12, "partial", None),
        (13, "log", None),
        (14, "progress", (100.0, "finalizing")),
        (15, "complete", None),
    ]
    complete = stream[-1].event()
    assert isinstance(complete, Complete)
    assert complete.results["steps"] == 5


async def test_an_attempt_that_raises_is_tried_again_until_there_are_no_attempts_left(scene: Scene):
    async with scene.worker():
        stream = await scene.end(await scene.submit("countdown", steps=5, step_s=0.0, fail_at=1, max_attempts=3))
    assert story(stream) == [
        (1, "submitted"),
        (2, "started"),
        (3, "progress"),
        (4, "retry"),
        (5, "started"),
        (6, "progress"),
        (7, "retry"),
        (8, "started"),
        (9, "progress"),
        (10, "error"),
    ]
    retry, error = stream[3].event(), stream[-1].event()
    assert isinstance(retry, Retry)
    assert isinstance(error, Error)
    assert (retry.error.type, retry.error.message, retry.next_attempt) == ("RuntimeError", "told to fail at step 1", 2)
    assert (error.code, error.failures, error.losses) == ("engine_error", 3, 0)


async def test_the_best_result_of_a_failed_job_is_kept(scene: Scene):
    async with scene.worker():
        stream = await scene.end(await scene.submit("countdown", steps=5, step_s=0.0, fail_at=3, max_attempts=1))
    error = stream[-1].event()
    assert isinstance(error, Error)
    assert error.results["steps"] == 2


async def test_a_child_that_is_killed_fails_its_attempt_with_the_signal(scene: Scene):
    async with scene.worker():
        stream = await scene.end(await scene.submit("countdown", steps=5, step_s=0.0, crash_at=2, max_attempts=2))
    retry, error = (row.event() for row in stream if row.type in {"retry", "error"})
    assert isinstance(retry, Retry)
    assert isinstance(error, Error)
    assert (retry.error.code, retry.error.signal, retry.error.exit_code) == ("killed", "SIGKILL", None)
    assert (error.code, error.failures) == ("killed", 2)

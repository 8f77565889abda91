"""What a person sees of a job: the fold of its events, and one line for each."""

import pytest

from events.catalog import RECORDED_TYPES
from phaseline.live import picture
from phaseline.render import console
from phaseline.watched import Watched, brief, line

PHASES = [
    {"name": "initializing", "until": 10},
    {"name": "counting", "until": 60},
    {"name": "finalizing", "until": 100},
]


def an_event(seq, kind, attempt=1, **fields):
    at = f"2026-11-24T08:00:{seq:02d}.000Z"
    return {"job_id": "j", "seq": seq, "type": kind, "attempt": attempt, "timestamp": at, "actor": "system", **fields}


def submitted():
    return an_event(1, "submitted", 0, engine="countdown", engine_version=1, phases=PHASES)


def started(seq, attempt=1, reused=()):
    return an_event(seq, "started", attempt, worker="w", lease="l", queue_wait_ms=1, reused_phases=list(reused))


def progress(seq, percent, phase, attempt=1, **said):
    return an_event(seq, "progress", attempt, progress=percent, phase=phase, **said)


def watched(*events):
    seen = Watched("j")
    for event in events:
        seen.see(event)
    return seen


def test_phases_move_as_their_events_say():
    seen = watched(
        submitted(), started(2), progress(3, 0.0, "initializing"), progress(4, 10.0, "counting"),
        progress(5, 35.0, "counting", done=5, total=10, unit="steps"),
    )  # fmt: skip
    first, second, third = seen.phases
    assert (first.fraction, first.ended - first.began) == (1.0, 1000)
    assert (second.fraction, second.message, second.ended) == (0.5, "5/10 steps", None)
    assert (third.fraction, third.began) == (0.0, None)
    assert (seen.status, seen.progress, seen.current) == ("running", 35.0, second)


def test_another_attempt_begins_with_empty_bars_but_what_it_reuses():
    error = {"type": "ValueError", "message": "too hot", "code": "engine_error", "retryable": True}
    seen = watched(
        submitted(), started(2), progress(3, 10.0, "counting"),
        an_event(4, "retry", error=error, next_attempt=2, not_before="2026-11-24T08:00:09.000Z"),
    )  # fmt: skip
    assert (seen.status, seen.trouble) == ("queued", "attempt 1 failed: too hot")
    seen.see(started(5, 2, ["initializing"]))
    assert [(phase.reused, phase.began) for phase in seen.phases] == [(True, None), (False, None), (False, None)]
    assert (seen.status, seen.trouble, seen.attempt) == ("running", "", 2)


def test_a_completed_job_has_left_all_its_phases():
    seen = watched(submitted(), started(2), progress(3, 60.0, "finalizing"), an_event(4, "complete", results=1))
    assert (seen.status, seen.progress) == ("completed", 100.0)
    assert seen.phases[-1].ended is not None


def test_every_type_of_event_has_a_line_and_a_picture():
    error = {"type": "ValueError", "message": "too\nhot", "code": "engine_error", "retryable": True}
    events = [
        submitted(),
        started(2),
        progress(3, 12.5, "counting", message="on the way"),
        an_event(4, "checkpoint", phase="counting", output={}, digest="", duration_ms=250),
        an_event(5, "partial", phase="counting", name="left", value=[1, 2, 3]),
        an_event(6, "log", level="info", message="hello", fields={}),
        an_event(7, "retry", error=error, next_attempt=2, not_before="2026-11-24T08:00:09.000Z"),
        an_event(8, "interrupted", reason="lost"),
        an_event(9, "cancel_requested", mode="graceful", grace_s=30, reason=None),
        an_event(10, "complete", results={}),
        an_event(11, "error", code="lost", message="gone", failures=0, losses=3),
        an_event(12, "cancelled", reason="enough", forced=False),
        an_event(13, "reopened", reason=None),
        an_event(
            14, "administered", act="key_created", target="3f0c", changed={"name": "", "scopes": ["read"]}, reason="new"
        ),
    ]
    assert {event["type"] for event in events} == set(RECORDED_TYPES)
    shown = [line(event) for event in events]
    assert [int(text.split()[0]) for text in shown] == list(range(1, 15))
    assert not any("\n" in text for text in shown)
    assert shown[13].endswith("key_created 3f0c (scopes read): new")
    assert "12.5 %  counting  on the way" in shown[2]
    seen, screen = Watched("j"), console()
    with screen.capture() as drawn:
        for event in events:
            seen.see(event)
            screen.print(picture(seen))
    assert "initializing" in drawn.get()


@pytest.mark.parametrize(
    "value, text",
    [
        (5, "5"),
        (1.23456, "1.235"),
        ([1, 2], "1 2"),
        ([], "none"),
        (list(range(9)), "[9]"),
        ({"gap": 0.5, "players": [{}], "note": None}, "gap 0.5, players [1]"),
        ("x" * 200, "x" * 119 + "…"),
    ],
)
def test_values_are_told_briefly(value, text):
    assert brief(value) == text

"""The checker lets every honest run pass and names what is wrong with any other."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from events.catalog import FINAL, Expire, Log, Report
from events.checker import CopyCheck, RecordingCheck, RunCheck, StreamCheck, Violation, check_all
from events.cloudevents import cloudevent
from events.errors import LeaseLost, Refused
from events.job import Job, decide
from events.log import JobRow
from events.record import Recorded
from tests.builders import a_cancel, a_reopen, an_expiry, progress
from tests.streams import JOB, WORDS, Stream, play

OTHER = "01a20ca3-8f44-71e6-954e-9ff94174bd65"


def a_long_life() -> Stream:
    """Lost once, failed, reopened, completed: every kind of boundary."""
    stream = Stream()
    stream.start("L1")
    stream.apply(Report(**stream.fence(), said=(progress(10.0), Log(level="info", message="hello"))))
    stream.apply(an_expiry(1, "lost"))
    stream.start("L2")
    stream.apply(Report(**stream.fence(), said=(progress(5.0), progress(20.0))))
    stream.fail(retryable=False)
    stream.apply(a_reopen())
    stream.start("L3")
    stream.apply(Report(**stream.fence(), said=(progress(50.0, "finalizing"),)))
    stream.finish({"answer": 42})
    return stream


def played(said: Iterable[tuple[str, int]], *, ended: bool = False) -> Stream:
    stream = Stream(timeouts={"start_s": 300.0, "attempt_s": 300.0, "total_s": 2000.0, "stall_s": 60.0})
    for word, after_ms in said:
        try:
            play(stream, word, after_ms)
        except Refused:
            continue
    if ended and stream.state.status not in FINAL:
        stream.apply(a_cancel("force"))
    return stream


def broken(events: Sequence[Recorded], row: JobRow | None, *, settled: bool = True) -> Violation:
    with pytest.raises(Violation) as caught:
        check_all(events, row, settled=settled)
    return caught.value


honest_words = st.lists(st.tuples(WORDS, st.integers(1, 400_000)), max_size=40)


# ---- streams


def test_the_long_life_is_honest() -> None:
    stream = a_long_life()
    assert [row.seq for row in stream.rows] == list(range(1, 15))
    check_all(stream.rows, stream.row, settled=True)


def test_a_hole_and_a_repeat_are_named_with_the_events_around_them() -> None:
    rows, row = a_long_life().rows, a_long_life().row
    hole = broken([*rows[:4], *rows[5:]], row)
    assert hole.rule == "I1"
    assert "after 4 comes 6" in hole.sentence
    assert [json.loads(event.partition(" command ")[0])["seq"] for event in hole.events] == [4, 6]
    assert broken([*rows[:4], rows[3], *rows[4:]], row).rule == "I1"
    assert broken(rows[1:], row).rule == "I1"


def test_the_time_of_a_stream_never_runs_backwards() -> None:
    stream = a_long_life()
    stream.rows[6] = stream.rows[6]._replace(at=1)
    assert broken(stream.rows, stream.row).rule == "I1"


def renumbered(rows: Sequence[Recorded]) -> list[Recorded]:
    return [row._replace(seq=seq) for seq, row in enumerate(rows, 1)]


def test_nothing_but_reopened_follows_a_terminal_event() -> None:
    rows = a_long_life().rows
    terminal = next(row for row in rows if row.type == "error")
    again = terminal._replace(command_id="another")
    for after in (again, rows[2]._replace(at=terminal.at, attempt=2, command_id="another")):
        seen = broken(renumbered([*rows[: terminal.seq], after, *rows[terminal.seq :]]), None)
        assert seen.rule == "I3"
        assert len(seen.events) == 2


def test_a_job_without_its_terminal_event_is_wrong_once_the_run_has_settled() -> None:
    stream = Stream()
    stream.start()
    check_all(stream.rows, stream.row, settled=False)
    assert broken(stream.rows, stream.row).rule == "I3"


def test_an_event_of_a_lost_attempt_is_named_with_what_ended_it() -> None:
    rows = a_long_life().rows
    lost = next(row for row in rows if row.type == "interrupted")
    late = rows[3]._replace(command_id="late", at=lost.at)
    seen = broken(renumbered([*rows[: lost.seq], late, *rows[lost.seq :]]), None)
    assert seen.rule == "I4"
    assert '"type":"interrupted"' in seen.events[0]
    # During the next attempt, both with the number of its own and with that of the next.
    at = next(row.seq for row in rows if row.type == "started" and row.attempt == 2)
    for attempt in (1, 2):
        zombie = late._replace(actor="worker:zombie", attempt=attempt, at=rows[at].at)
        assert broken(renumbered([*rows[:at], zombie, *rows[at:]]), None).rule == "I4"


def test_attempts_rise_by_one_and_do_not_overlap() -> None:
    rows = a_long_life().rows
    second = next(row for row in rows if row.type == "started" and row.attempt == 2)
    skipped = [row._replace(attempt=row.attempt + (row.seq >= second.seq)) for row in rows]
    assert broken(skipped, None).rule == "I4"
    overlapping = [row for row in rows if row.type != "interrupted"]
    assert broken(renumbered(overlapping), None).rule == "I4"


def test_a_command_that_was_recorded_twice_is_named() -> None:
    stream = Stream()
    stream.start()
    report = Report(**stream.fence(), said=(Log(level="info", message="said once"),))
    stream.apply(report)
    stream.apply(report)  # as a committer that ran it again, some milliseconds later
    assert broken(stream.rows, stream.row, settled=False).rule == "once"
    apart = Stream()
    apart.start()
    apart.apply(report)
    apart.apply(Report(**apart.fence(), said=(progress(1.0),)))
    apart.apply(report)
    seen = broken(apart.rows, apart.row, settled=False)
    assert seen.rule == "once"
    assert "the command of sequence 3 is recorded again as 5" in seen.sentence


def test_what_one_command_cannot_cause_is_two() -> None:
    stream = a_long_life()
    merged = [row._replace(command_id="one", at=5_000_000, actor="worker:w") for row in stream.rows]
    assert broken([stream.rows[0], *merged[1:]], None).rule == "once"


def test_progress_never_falls_within_an_attempt() -> None:
    stream = a_long_life()
    falling = stream.rows[6]._replace(data=stream.rows[6].data.replace("5.0", "30.0", 1))
    assert broken([*stream.rows[:6], falling, *stream.rows[7:]], None).rule == "progress"


def test_a_row_that_is_not_the_fold_is_named_with_its_columns() -> None:
    stream = a_long_life()
    wrong = replace(stream.row, job=replace(stream.state, progress=7.0, losses=2))
    seen = broken(stream.rows, wrong)
    assert seen.rule == "I5"
    assert "losses is 2, not 0" in seen.sentence
    assert "progress is 7.0, not 100.0" in seen.sentence
    assert broken(stream.rows, None).rule == "I5"
    assert broken([], stream.row).rule == "I5"


def test_an_event_that_cannot_be_read_is_named() -> None:
    stream = a_long_life()
    assert broken([*stream.rows[:4], stream.rows[4]._replace(data="{}"), *stream.rows[5:]], None).rule == "I5"


@given(honest_words)
@settings(max_examples=200, deadline=None)
def test_every_honest_stream_passes(said: list[tuple[str, int]]) -> None:
    stream = played(said)
    check_all(stream.rows, stream.row, settled=False)
    check_all(stream.rows, stream.row, settled=stream.state.status in FINAL)


def _dropped(rows: list[Recorded], at: int) -> list[Recorded]:
    return [*rows[:at], *rows[at + 1 :]]


def _repeated(rows: list[Recorded], at: int) -> list[Recorded]:
    return [*rows[: at + 1], *rows[at:]]


def _swapped(rows: list[Recorded], at: int) -> list[Recorded]:
    other = at + 1 if at + 1 < len(rows) else at - 1
    changed = list(rows)
    changed[at], changed[other] = changed[other], changed[at]
    return changed


def _of_another_attempt(rows: list[Recorded], at: int) -> list[Recorded]:
    return [*rows[:at], rows[at]._replace(attempt=rows[at].attempt + 1), *rows[at + 1 :]]


def _again_renumbered(rows: list[Recorded], at: int) -> list[Recorded]:
    """The same command recorded once more at the end of its group, a moment later."""
    end = next((row.seq for row in rows[at:] if row.command_id != rows[at].command_id), len(rows) + 1) - 1
    again = rows[at]._replace(at=rows[end - 1].at + 1)
    return renumbered([*rows[:end], again, *(row._replace(at=row.at + 1) for row in rows[end:])])


MUTATIONS = [_dropped, _repeated, _swapped, _of_another_attempt, _again_renumbered]


@given(honest_words, st.sampled_from(MUTATIONS), st.data())
@settings(max_examples=400, deadline=None)
def test_any_single_change_of_a_stream_is_caught(
    said: list[tuple[str, int]], change: Callable[[list[Recorded], int], list[Recorded]], data: st.DataObject
) -> None:
    stream = played(said)
    assume(len(stream.rows) > 1)
    changed = change(list(stream.rows), data.draw(st.integers(0, len(stream.rows) - 1)))
    broken(changed, stream.row, settled=False)


@given(honest_words, st.sampled_from([field.name for field in fields(Job)]))
@settings(max_examples=200, deadline=None)
def test_any_changed_column_of_a_row_is_caught(said: list[tuple[str, int]], name: str) -> None:
    stream = played(said)
    changed: Any = {name: "changed" if isinstance(getattr(stream.state, name), str | None) else -1}
    assert broken(stream.rows, replace(stream.row, job=replace(stream.state, **changed)), settled=False).rule == "I5"


# ---- between jobs


def test_a_key_makes_one_job_for_each_tenant_and_a_submit_makes_one_job() -> None:
    one, other = (Stream(idempotency={"key_sha256": "k", "fingerprint": "f"}).rows[0] for _ in range(2))
    other = other._replace(job_id=OTHER)
    run = RunCheck()
    run.take(one)
    run.take(other._replace(tenant="another", job_id=OTHER[:-1] + "6", command_id="theirs"))
    with pytest.raises(Violation, match="one idempotency key made two jobs") as caught:
        run.take(other)
    assert caught.value.rule == "keys"
    with pytest.raises(Violation, match="one submit made two jobs") as caught:
        run.take(one._replace(job_id=OTHER, data=Stream().rows[0].data))
    assert caught.value.rule == "once"


# ---- recordings


def event_of(row: Recorded) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(row.line())
    return event


def a_recording(
    rows: Sequence[Recorded], cuts: Sequence[tuple[int, int]], status: str, *, batch: bool = False
) -> list[str]:
    """What an honest client writes down that loses its connection after each cut: (events seen in all, head then)."""
    lines: list[dict[str, Any]] = []
    seen = 0
    for upto, head in [*cuts, (len(rows), len(rows))]:
        lines.append({"type": "connected", "job_id": JOB, "after": seen})
        there = status if head == len(rows) else "running"
        lines.append({"type": "hello", "job_id": JOB, "status": there, "head_seq": head, "resume": "fresh"})
        events = [event_of(row) for row in rows[seen:upto]]
        backlog = [event for event in events if event["seq"] <= head]
        if batch and backlog:
            lines.append({"type": "batch", "events": backlog})
        else:
            lines += backlog
        if upto >= head:
            lines.append({"type": "caught_up", "seq": head})
            lines += [event for event in events if event["seq"] > head]
            lines.append({"type": "heartbeat", "seq": upto})
        seen = upto
    lines.append({"type": "closed", "code": 4000 if status == "failed" else 1000})
    return [json.dumps(line) for line in lines]


def read(lines: Iterable[str], rows: Sequence[Recorded]) -> RecordingCheck:
    check = RecordingCheck("client 1")
    by_seq = {row.seq: row for row in rows}
    for line in lines:
        for event in check.take(line):
            check.same(event, by_seq.get(event["seq"]) if event["job_id"] == JOB else None)
    return check


def refused(lines: Iterable[str], rows: Sequence[Recorded]) -> Violation:
    with pytest.raises(Violation) as caught:
        read(lines, rows)
    assert caught.value.rule == "I2"
    assert caught.value.sentence.startswith("client 1, line ")
    return caught.value


def test_an_honest_client_that_reconnects_passes() -> None:
    stream = a_long_life()
    check = read(a_recording(stream.rows, [(3, 9), (7, 7), (12, 8)], "completed", batch=True), stream.rows)
    assert (check.connections, check.events) == (4, 14)


def test_a_gap_a_repeat_and_a_changed_event_of_a_client_are_named() -> None:
    stream = a_long_life()
    lines = a_recording(stream.rows, [], "completed")
    assert "after 4 came 6, over a hole" in refused([*lines[:6], *lines[7:]], stream.rows).sentence
    assert "after 5 came 5, again" in refused([*lines[:7], lines[6], *lines[7:]], stream.rows).sentence
    changed = [*lines[:5], lines[5].replace('"level": "info"', '"level": "error"'), *lines[6:]]
    assert changed != lines
    seen = refused(changed, stream.rows)
    assert "not what the log has" in seen.sentence
    assert len(seen.events) == 2
    assert "the log does not have" in refused(lines, stream.rows[:9]).sentence


def test_a_reconnect_continues_exactly_where_the_client_was() -> None:
    stream = a_long_life()
    lines = a_recording(stream.rows, [(5, 9)], "completed")
    at = next(place for place, line in enumerate(lines) if place and '"connected"' in line)
    ahead = [*lines[:at], lines[at].replace('"after": 5', '"after": 6'), *lines[at + 1 :]]
    assert "the client had 5 and asked for what follows 6" in refused(ahead, stream.rows).sentence
    # One that asks again for what it had already gets it again: what it had handled is its own affair.
    behind = a_recording(stream.rows, [(5, 9)], "completed")[:at] + a_recording(stream.rows, [], "completed")
    assert read(behind, stream.rows).events == 5 + 14


def test_caught_up_never_comes_early_nor_twice() -> None:
    stream = a_long_life()
    lines = a_recording(stream.rows, [], "completed")
    at = next(place for place, line in enumerate(lines) if '"caught_up"' in line)
    early = [*lines[: at - 1], lines[at], lines[at - 1], *lines[at + 1 :]]
    assert "the head was 14" in refused(early, stream.rows).sentence
    assert "second time" in refused([*lines[: at + 1], *lines[at:]], stream.rows).sentence
    never = [*lines[:at], *lines[at + 1 :]]
    assert "before `caught_up`" in refused(never, stream.rows).sentence


def test_a_stream_ends_only_behind_a_terminal_event() -> None:
    stream = a_long_life()
    lines = a_recording(stream.rows[:-1], [], "completed")
    assert "without a terminal event" in refused(lines, stream.rows).sentence


def test_a_reset_starts_the_client_over() -> None:
    stream = a_long_life()
    lines = [
        {"type": "connected", "job_id": JOB, "after": 99},
        {"type": "hello", "job_id": JOB, "status": "completed", "head_seq": 14, "resume": "reset"},
        {"type": "reset", "reason": "seq_ahead", "head_seq": 14, "snapshot": {"seq": 14, "status": "completed"}},
        event_of(stream.rows[-1]),
        {"type": "caught_up", "seq": 14},
        {"type": "closed", "code": 1000},
    ]
    assert read(map(json.dumps, lines), stream.rows).events == 1
    lines[1]["resume"] = "resumed"
    assert "without a reset" in refused(map(json.dumps, lines), stream.rows).sentence


cuts = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), max_size=4)


def honest_recording(data: st.DataObject) -> tuple[Stream, list[str]]:
    stream = played(data.draw(honest_words), ended=True)
    total = len(stream.rows)
    places = sorted((min(upto, total), min(head, total)) for upto, head in data.draw(cuts))
    seen, made = 0, []
    for upto, head in places:
        made.append((upto, max(head, seen)))  # a head is never behind what was already sent
        seen = upto
    return stream, a_recording(stream.rows, made, stream.state.status, batch=data.draw(st.booleans()))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_every_honest_recording_passes(data: st.DataObject) -> None:
    stream, lines = honest_recording(data)
    read(lines, stream.rows)


@given(st.data(), st.sampled_from(["drop", "repeat", "swap", "change"]))
@settings(max_examples=300, deadline=None)
def test_any_single_change_of_what_a_client_saw_is_caught(data: st.DataObject, change: str) -> None:
    stream, lines = honest_recording(data)
    places = [place for place, line in enumerate(lines) if '"actor"' in line]
    assume(places)
    at = data.draw(st.sampled_from(places))
    if change == "drop":
        del lines[at]
    elif change == "repeat":
        lines.insert(at, lines[at])
    elif change == "swap":
        neighbours = [(one, two) for one, two in pairwise(places) if two == one + 1]
        assume(neighbours)
        one, two = data.draw(st.sampled_from(neighbours))
        lines[one], lines[two] = lines[two], lines[one]
    else:
        lines[at] = lines[at].replace('"actor": "', '"actor": "x', 1)
    refused(lines, stream.rows)


# ---- the copy


def held(rows: Sequence[Recorded], messages: Iterable[bytes]) -> CopyCheck:
    check = CopyCheck()
    for row in rows:
        check.logged(row)
    check.begin()
    for message in messages:
        check.copied(message)
    return check


def test_a_copy_with_repeats_and_neighbours_swapped_is_complete() -> None:
    rows = a_long_life().rows
    messages = [cloudevent(row) for row in rows]
    check = held(rows, [*messages[:4], messages[5], messages[4], *messages[2:]])
    assert list(check.missing()) == []
    assert check.beyond == {}


def test_what_the_copy_lacks_and_what_only_the_copy_has_is_named() -> None:
    rows = a_long_life().rows
    messages = [cloudevent(row) for row in rows]
    assert list(held(rows, [*messages[:4], *messages[6:]]).missing()) == [(JOB, 5), (JOB, 6)]
    check = held(rows[:-1], messages)
    assert list(check.beyond) == [(JOB, 14)]
    check.held_against(messages[-1], rows[-1])
    with pytest.raises(Violation, match="the log does not have") as caught:
        check.held_against(messages[-1], None)
    assert caught.value.rule == "I6"
    with pytest.raises(Violation, match="not what the log has"):
        check.held_against(messages[-1], rows[-1]._replace(actor="another"))


@pytest.mark.parametrize("broken_message", [b"no JSON", b"[]", b"{}", b'{"subject":"x","sequence":"1"}'])
def test_what_is_no_cloudevent_of_ours_is_named(broken_message: bytes) -> None:
    with pytest.raises(Violation, match="no CloudEvent of ours"):
        held(a_long_life().rows, [broken_message])


def test_a_copied_event_is_the_one_in_the_log() -> None:
    rows = a_long_life().rows
    with pytest.raises(Violation, match="not what the log has"):
        held(rows, [cloudevent(rows[0]._replace(tenant="another"))])


def test_what_retention_removed_is_excused() -> None:
    rows = a_long_life().rows
    check = held(rows, [cloudevent(row) for row in rows[3:]])
    assert check.first == (JOB, 4)
    for row in rows[:3]:
        check.excuse(row.job_id, row.seq)
    assert list(check.missing()) == []


# ---- what a violation shows


def test_a_large_event_is_shown_in_part() -> None:
    assert len(Violation("I1", "x", "y" * 5000).events[0]) < 1000


def test_a_worker_whose_attempt_was_lost_does_not_end_its_job_for_its_total_time() -> None:
    stream = Stream(timeouts={"total_s": 1.0})
    stream.start()
    lease = stream.state.lease_id
    expire = Expire(command_id="x", actor="worker:w", attempt=1, cause="total_timeout", lease_id=lease)
    assert [event.type for event in decide(stream.job, expire, stream.now + 2000)] == ["error"]
    stream.apply(an_expiry(1, "lost"))
    with pytest.raises(LeaseLost):
        decide(stream.job, expire, stream.now + 2000)


def test_the_state_a_check_ends_with_is_the_jobs() -> None:
    stream = a_long_life()
    check = StreamCheck(JOB)
    for row in stream.rows:
        check.take(row)
    assert (check.job, check.seq) == (stream.state, 14)

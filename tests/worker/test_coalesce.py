"""Progress is thinned, nothing else is, and nothing changes places."""

import asyncio
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine_worker.coalesce import INTERVAL_S, Coalescer
from engine_worker.outbox import BYTES_MAX, EVENTS_MAX, Entry, Outbox
from events.catalog import Log, Progress

Step = tuple[float, str, bool]
steps = st.lists(
    st.tuples(st.floats(0, 0.4), st.sampled_from("ab"), st.booleans()),
    max_size=30,
)


def passed(said: list[Step]) -> tuple[list[Progress], list[Progress], list[tuple[float, Progress]]]:
    """Marks, everything said, and everything that passed with its time; each progress is one more percent."""
    coalescer, now = Coalescer(), 100.0
    marks, events, out = [], [], []
    phase_before = None
    for index, (pause_s, phase, mark) in enumerate(said):
        # Time stops where something held back is due, as the outbox does.
        while (due_at := coalescer.due_at()) is not None and due_at <= now + pause_s:
            out += [(due_at, event) for event in coalescer.flush(due_at)]
        now += pause_s
        event = Progress(progress=index, phase=phase)
        events.append(event)
        if mark or phase != phase_before:
            marks.append(event)
        phase_before = phase
        out += [(now, e) for e in coalescer.offer(event, now, mark=mark)]
    out += [(now, event) for event in coalescer.flush(now)]
    return marks, events, out


@given(steps)
def test_what_passes_was_said_and_keeps_its_order(said: list[Step]):
    _, events, out = passed(said)
    percents = [event.progress for _, event in out]
    assert percents == sorted(set(percents))
    assert all(event in events for _, event in out)


@given(steps)
def test_first_and_last_of_each_phase_and_every_mark_pass(said: list[Step]):
    marks, events, out = passed(said)
    through = [event for _, event in out]
    assert all(mark in through for mark in marks)  # the first of a phase counts as one
    lasts = [event for event, following in pairwise(events) if following.phase != event.phase] + events[-1:]
    assert all(last in through for last in lasts)


@given(steps)
def test_between_them_at_most_one_passes_in_250_ms(said: list[Step]):
    marks, events, out = passed(said)
    for (before, _), (at, event) in pairwise(out):
        following = events[events.index(event) + 1 :][:1]
        ends_phase = not following or following[0] in marks
        if event not in marks and not ends_phase:
            assert at - before >= INTERVAL_S - 1e-9


def a_log(size: int = 10) -> Entry:
    """A log event that occupies `size` bytes."""
    return Entry(Log(level="info", message="m"), size)


def a_progress(percent: float) -> Entry:
    """Progress in one phase."""
    return Entry(Progress(progress=percent, phase="a"), 10)


async def test_any_other_event_comes_behind_the_progress_said_before_it():
    outbox = Outbox()
    for percent in (1, 2, 3):
        await outbox.put(a_progress(percent))
    await outbox.put(a_log())
    said = [entry.event for entry in await outbox.take()]
    assert [event.progress if isinstance(event, Progress) else event.type for event in said] == [1, 3, "log"]


async def test_what_is_held_back_comes_by_itself_a_moment_later():
    outbox = Outbox()
    await outbox.put(a_progress(1))
    await outbox.put(a_progress(2))
    assert [entry.event for entry in await outbox.take()] == [Progress(progress=1, phase="a")]
    async with asyncio.timeout(5):
        assert [entry.event for entry in await outbox.take()] == [Progress(progress=2, phase="a")]


async def test_after_the_end_the_taker_gets_the_rest_and_then_nothing():
    outbox = Outbox()
    await outbox.put(a_progress(1))
    await outbox.put(a_progress(2))
    outbox.close()
    assert [len(await outbox.take()) for _ in range(3)] == [1, 1, 0]


async def test_a_full_outbox_makes_its_engine_wait():
    for entry, fits in ((a_log(1), EVENTS_MAX), (a_log(BYTES_MAX // 4), 4)):
        outbox = Outbox()
        for _ in range(fits):
            await outbox.put(entry)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(outbox.put(entry))
            await asyncio.sleep(0)
            assert not waiting.done()
            await outbox.take()
        assert len(await outbox.take()) >= 1


async def test_an_event_larger_than_the_outbox_passes_alone():
    outbox = Outbox()
    async with asyncio.timeout(5):
        await outbox.put(a_log(2 * BYTES_MAX))
    assert len(await outbox.take()) == 1


async def test_a_lost_attempt_keeps_nothing_and_blocks_nobody():
    outbox = Outbox()
    for _ in range(EVENTS_MAX):
        await outbox.put(a_log())
    async with asyncio.TaskGroup() as group:
        group.create_task(outbox.put(a_log()))
        await asyncio.sleep(0)
        outbox.close(drop=True)
    assert await outbox.take() == []

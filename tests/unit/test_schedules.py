"""When schedules tick, over daylight saving and outages (events/schedules.py)."""

from collections.abc import Sequence

import pytest

from events.clock import parse_instant, rfc3339
from events.schedules import CATCH_UPS, FREQUENT, LOOK_BACK_MS, BadSchedule, CatchUp, Schedule, checked

MINUTE_MS = 60_000


def a_schedule(
    cron: str = "30 2 * * *",
    timezone: str = "Europe/Zurich",
    catch_up: CatchUp = "all",
    *,
    most: int = 100,
    next_at: str | None = None,
) -> Schedule:
    at = None if next_at is None else parse_instant(next_at)
    return Schedule("s1", "default", "nightly", cron, timezone, catch_up, most, {}, 0, "user:test", at)


def ticks(schedule: Schedule, after: str, count: int) -> list[str]:
    found = [parse_instant(after)]
    for _ in range(count):
        found.append(schedule.after(found[-1]))
    return shown(found[1:])


def shown(instants: Sequence[int]) -> list[str]:
    return [rfc3339(instant).removesuffix(":00.000Z") for instant in instants]


# In 2026 Zurich leaves out 02:00 to 03:00 on 29 March, and has it twice on 25 October.
@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        # A fixed time that is left out comes at the end of the gap, one that comes twice is taken the first time.
        ("30 2 * * *", "2026-03-28T00:00:00Z", ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"]),
        ("30 2 * * *", "2026-10-24T00:00:00Z", ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"]),
        # Looked at within the second 02:00 to 03:00, the tick is over.
        ("30 2 * * *", "2026-10-25T01:10:00Z", ["2026-10-26T01:30", "2026-10-27T01:30"]),
        # Every hour is every hour of real time.
        ("30 * * * *", "2026-03-29T00:00:00Z", ["2026-03-29T00:30", "2026-03-29T01:30", "2026-03-29T02:30"]),
        ("30 * * * *", "2026-10-24T23:00:00Z", ["2026-10-24T23:30", "2026-10-25T00:30", "2026-10-25T01:30"]),
        ("0 6 * * FRI", "2026-11-26T12:00:00Z", ["2026-11-27T05:00", "2026-12-04T05:00"]),
        ("0 0 29 2 *", "2026-11-28T00:00:00Z", ["2028-02-28T23:00"]),
    ],
)
def test_ticks_are_those_of_cron_whatever_the_clocks_do(cron: str, after: str, expected: list[str]):
    assert ticks(a_schedule(cron), after, len(expected)) == expected


@pytest.mark.parametrize("cron", ["*/20 1-3 * * *", "15 2 * * *", "0,30 2,3 * * SUN", "*/7 * * * *"])
def test_ticks_rise_through_both_changes_of_the_clocks(cron: str):
    schedule = a_schedule(cron)
    for begin, until in (("2026-03-28", "2026-03-31"), ("2026-10-24", "2026-10-27")):
        at, end = parse_instant(f"{begin}T00:00:00Z"), parse_instant(f"{until}T00:00:00Z")
        found = []
        while (at := schedule.after(at)) < end:
            found.append(at)
        assert found == sorted(set(found))
        due = a_schedule(cron, next_at=rfc3339(found[0])).due(found[-1])
        assert list(due.ticks) == found[-100:]


NOW = "2026-11-28T12:00:30Z"


@pytest.mark.parametrize(
    ("catch_up", "next_at", "made", "missed"),
    [
        ("skip", "2026-11-28T12:00:00Z", ["2026-11-28T12:00"], False),
        ("skip", "2026-11-28T09:00:00Z", ["2026-11-28T12:00"], True),
        ("last", "2026-11-28T09:00:00Z", ["2026-11-28T12:00"], True),
        ("last", "2026-11-28T12:00:00Z", ["2026-11-28T12:00"], False),
        ("all", "2026-11-28T11:00:00Z", ["2026-11-28T11:00", "2026-11-28T12:00"], False),
        ("all", "2026-11-28T09:00:00Z", ["2026-11-28T11:00", "2026-11-28T12:00"], True),
    ],
)
def test_missed_ticks_are_caught_up_by_the_rule_of_their_schedule(
    catch_up: CatchUp, next_at: str, made: list[str], missed: bool
):
    due = a_schedule("0 * * * *", "UTC", catch_up, most=2, next_at=next_at).due(parse_instant(NOW))
    assert shown(due.ticks) == made
    assert due.missed_from == (parse_instant(next_at) if missed else None)
    assert shown([due.next_at]) == ["2026-11-28T13:00"]


def test_a_tick_seen_too_late_is_skipped_and_the_next_one_waits():
    due = a_schedule("0 12 * * *", "UTC", "skip", next_at="2026-11-28T12:00:00Z").due(
        parse_instant("2026-11-28T12:01:01Z")
    )
    assert (due.ticks, shown([due.next_at])) == ((), ["2026-11-29T12:00"])
    assert due.missed_from == parse_instant("2026-11-28T12:00:00Z")


@pytest.mark.parametrize("catch_up", CATCH_UPS)
def test_after_years_away_a_frequent_schedule_looks_a_week_back_and_a_rare_one_as_far_as_it_takes(catch_up: CatchUp):
    now = parse_instant(NOW)
    frequent = a_schedule("* * * * *", "UTC", catch_up, next_at="2020-01-01T00:00:00Z").due(now)
    assert LOOK_BACK_MS // MINUTE_MS > FREQUENT
    assert frequent.ticks[-1] == now - now % MINUTE_MS
    assert frequent.ticks == tuple(range(frequent.ticks[0], now, MINUTE_MS))
    assert len(frequent.ticks) == {"skip": 1, "last": 1, "all": 100}[catch_up]
    rare = a_schedule("0 0 1 1 *", "UTC", catch_up, next_at="2020-01-01T00:00:00Z").due(now)
    years = [] if catch_up == "skip" else [2026] if catch_up == "last" else range(2020, 2027)
    assert shown(rare.ticks) == [f"{year}-01-01T00:00" for year in years]


@pytest.mark.parametrize(
    ("cron", "timezone", "field"),
    [
        ("* * * *", "UTC", "cron"),
        ("0 * * * * *", "UTC", "cron"),
        ("@daily", "UTC", "cron"),
        ("61 * * * *", "UTC", "cron"),
        ("0 0 31 2 *", "UTC", "cron"),
        ("0,1" * 40 + " * * * *", "UTC", "cron"),
        ("0 0 * * *", "Europe/Atlantis", "timezone"),
        ("0 0 * * *", "../../etc/passwd", "timezone"),
        ("0 0 * * *", "", "timezone"),
        ("0 0 * * *", "x" * 5000, "timezone"),
    ],
)
def test_what_is_no_cron_expression_or_time_zone_is_named(cron: str, timezone: str, field: str):
    with pytest.raises(BadSchedule) as bad:
        checked(a_schedule(cron, timezone), 0)
    assert bad.value.field == field


def test_the_key_of_a_ticks_job_is_its_schedules_and_its_own():
    schedule, tick = a_schedule(), parse_instant(NOW)
    keys = [schedule.idempotency(tick), schedule.idempotency(tick + MINUTE_MS), schedule.idempotency(tick)]
    assert (keys[0] == keys[2], keys[0] == keys[1]) == (True, False)

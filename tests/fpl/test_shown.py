"""What is shown while the solver works: at most four plans in any second, the last one always."""

from dataclasses import replace
from itertools import pairwise

import pytest

from engine_worker.context import Context
from engine_worker.engines.fpl import fpl, shown
from engine_worker.engines.fpl.problem import Plan, hold_plan
from tests.fpl.toy import toy


class Clock:
    """Stands still but for what is slept or added."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(shown, "time", made)
    return made


def better(plan: Plan, points: float) -> Plan:
    return replace(plan, terms=replace(plan.terms, xp=plan.terms.xp + points))


def test_of_a_burst_four_a_second_are_shown_and_the_last_one_always(clock: Clock):
    said: list[tuple[float, float]] = []
    context = Context(
        fpl.phases, lambda m: said.append((clock.now, m["value"]["objective_pts"])) if "value" in m else None
    )
    context.phase("analyzing_transfers")
    live, plan = shown.Live(context), hold_plan(toy(1, 1))
    for step in range(200):
        live.show("horizon", better(plan, step), 1000.0)
        clock.now += 0.01
    live.flush()
    times, worth = [at for at, _ in said], [points for _, points in said]
    assert all(fifth - first >= 1.0 - 1e-9 for first, fifth in zip(times, times[4:], strict=False))
    assert worth == sorted(worth)
    assert worth[-1] == pytest.approx(round(better(plan, 199).objective, 2))
    assert 8 <= len(said) <= 13


def test_a_worse_plan_or_a_higher_bound_is_never_shown(clock: Clock):
    said: list[dict[str, float]] = []
    context = Context(fpl.phases, lambda m: said.append(m["value"]) if "value" in m else None)
    context.phase("analyzing_transfers")
    live, plan = shown.Live(context), hold_plan(toy(1, 1))
    for points, bound in ((5, 900.0), (3, 950.0), (6, 500.0), (6, 700.0), (9, 480.0)):
        live.show("horizon", better(plan, points), bound)
        clock.now += 1
    assert all(b["objective_pts"] >= a["objective_pts"] for a, b in pairwise(said))
    assert [value["bound_pts"] for value in said] == [900.0, 500.0, 480.0]

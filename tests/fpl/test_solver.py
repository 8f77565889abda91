"""The solver's plan is the best there is: compared with every plan, where every plan can be counted."""

from itertools import combinations, product

import pytest

from engine_worker.engines.fpl.problem import Chip, Plan, Problem, hold_plan, make_plan
from engine_worker.engines.fpl.rules import squad_violations
from engine_worker.engines.fpl.solver import solve, solve_free_hit
from tests.fpl.builders import a_problem

GAP = 4e-4


def single_swaps(problem: Problem, squad: frozenset[int]) -> list[tuple[int, int]]:
    return [
        (sold, bought)
        for sold in sorted(squad)
        for bought in problem.elements
        if bought not in squad and problem.position[bought] == problem.position[sold]
    ]


def legal(problem: Problem, plan: Plan) -> bool:
    return all(
        week.bank >= 0
        and week.hits <= problem.max_hits
        and not squad_violations(problem.rules, [(problem.position[e], problem.club[e]) for e in week.squad])
        for week in plan.weeks
    )


def best_of_all(problem: Problem, transfers: int) -> float:
    """The best objective of a horizon of one gameweek with at most this many transfers."""
    swaps = single_swaps(problem, problem.owned)
    best = hold_plan(problem).objective
    for count in range(1, transfers + 1):
        for chosen in combinations(swaps, count):
            sold, bought = {a for a, _ in chosen}, {b for _, b in chosen}
            if len(sold) == len(bought) == count:
                plan = make_plan(problem, [(sorted(sold), sorted(bought))])
                if legal(problem, plan):
                    best = max(best, plan.objective)
    return best


@pytest.mark.parametrize("team_id, seed, bank", [(1, 0, 0), (2, 1, 5), (3, 2, 20), (4, 3, 2), (5, 4, 60), (6, 5, 10)])
def test_one_transfer_is_the_best_of_all(team_id, seed, bank):
    problem = a_problem(team_id, 1, 40, seed, bank=bank, free_transfers=1)
    solved = solve(problem, transfer_weeks=1, time_limit_s=20)
    assert solved.plan is not None
    assert solved.status == "optimal"
    assert legal(problem, solved.plan)
    assert solved.plan.objective == pytest.approx(best_of_all(problem, 1), rel=GAP)


@pytest.mark.parametrize("seed, free, hits", [(10, 2, 0), (11, 1, 1), (12, 0, 2)])
def test_two_transfers_with_and_without_hits_are_the_best_of_all(seed, free, hits):
    problem = a_problem(1, 1, 12, seed, bank=25, free_transfers=free, max_hits=hits)
    solved = solve(problem, transfer_weeks=1, time_limit_s=20)
    assert solved.plan is not None
    assert solved.plan.objective == pytest.approx(best_of_all(problem, 2), rel=GAP)


def test_two_gameweeks_are_the_best_of_all():
    problem = a_problem(4, 2, 8, 20, bank=15, free_transfers=1)
    best = hold_plan(problem).objective
    choices: list[list[tuple[int, int]]] = [[], *([swap] for swap in single_swaps(problem, problem.owned))]
    for first in choices:
        now = make_plan(problem, [([a for a, _ in first], [b for _, b in first]), ((), ())])
        if not legal(problem, now):
            continue
        squad = now.weeks[1].squad
        # Two transfers in the second gameweek need a first one saved.
        later = single_swaps(problem, squad)
        pairs = combinations(later, 2) if not first else ()
        for second in (*([swap] for swap in later), *pairs):
            sold, bought = {a for a, _ in second}, {b for _, b in second}
            if len(sold) == len(bought) == len(second):
                plan = make_plan(problem, [(now.weeks[0].sold, now.weeks[0].bought), (sorted(sold), sorted(bought))])
                best = max(best, plan.objective if legal(problem, plan) else best)
        best = max(best, now.objective)
    solved = solve(problem, transfer_weeks=2, time_limit_s=20)
    assert solved.plan is not None
    assert solved.plan.objective == pytest.approx(best, rel=GAP)


@pytest.mark.parametrize("chip", [None, Chip("wildcard"), Chip("bboost"), Chip("3xc")])
def test_the_bound_is_never_below_the_plan_and_meets_it(chip):
    problem = a_problem(2, 2, 30, 30, max_hits=1)
    solved = solve(problem, transfer_weeks=2, time_limit_s=20, chip=chip, start=None if chip else hold_plan(problem))
    assert solved.plan is not None
    assert solved.bound is not None
    assert legal(problem, solved.plan)
    assert solved.plan.objective <= solved.bound + 1e-6
    assert solved.bound <= solved.plan.objective * (1 + GAP)


def test_more_room_is_never_worth_less():
    problem = a_problem(3, 3, 30, 40, max_hits=1)
    plans = [solve(problem, transfer_weeks=weeks, time_limit_s=20).plan for weeks in (0, 1, 3)]
    worth = [plan.objective for plan in plans if plan is not None]
    assert worth[0] == pytest.approx(hold_plan(problem).objective, rel=1e-6)
    assert worth == sorted(worth)


def test_a_free_hit_hands_its_squad_back():
    problem = a_problem(1, 3, 40, 50)
    plan = solve_free_hit(problem, time_limit_s=20, stop=lambda _gap: False).plan
    assert plan is not None
    first, second = plan.weeks[:2]
    assert first.squad != problem.owned
    assert (first.hits, first.chip) == (0, "freehit")
    kept = problem.owned - set(second.sold) | set(second.bought)
    assert second.squad == kept
    assert second.free_transfers == problem.free_transfers


def test_a_squad_above_the_club_limit_may_hold_but_not_trade_on():
    problem = a_problem(5, 1, 40, 60, bank=50, free_transfers=1)
    clubs = dict(problem.club)
    four = sorted(problem.owned)[:4]
    clubs.update(dict.fromkeys(four, 99))
    moved = Problem(**{**problem.__dict__, "club": clubs})
    plan = solve(moved, transfer_weeks=1, time_limit_s=20, start=hold_plan(moved)).plan
    assert plan is not None
    week = plan.weeks[0]
    assert not week.bought or sum(clubs[element] == 99 for element in week.squad) <= 3
    held = solve(moved, transfer_weeks=0, time_limit_s=20).plan
    assert held is not None
    assert held.weeks[0].squad == moved.owned


def test_a_player_sold_and_bought_back_is_paid_in_full():
    problem = a_problem(1, 3, 24, 70, bank=100)
    sold, bought = next(
        (a, b)
        for a, b in product(sorted(problem.owned), problem.elements)
        if b not in problem.owned and problem.position[a] == problem.position[b]
    )
    plan = make_plan(problem, [([sold], [bought]), ([bought], [sold]), ([sold], [bought])])
    lost = problem.cost[sold] - problem.selling[sold]
    assert plan.weeks[1].bank == problem.bank - lost
    assert plan.weeks[2].bank == problem.bank - lost + problem.cost[sold] - problem.cost[bought]

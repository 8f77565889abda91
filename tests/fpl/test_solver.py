"""The solver's plan is the best there is: compared with every plan, where every plan can be counted."""

import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations, product

import pytest

from engine_worker.engines.fpl.chip_search import solve_with_chips
from engine_worker.engines.fpl.highs import prepared, program_of
from engine_worker.engines.fpl.model import Model
from engine_worker.engines.fpl.narrowing import narrowing
from engine_worker.engines.fpl.problem import ChipCopy, Moves, Plan, Problem, hold_plan, make_plan
from engine_worker.engines.fpl.rules import squad_violations
from engine_worker.engines.fpl.solver import Limits, Sight, solve, with_free_hits
from tests.fpl.builders import a_problem
from tests.fpl.toy import Search, toy

GAP = 4e-4
EXACT = Limits(100, 1e-6)


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
                plan = make_plan(problem, [Moves(tuple(sorted(sold)), tuple(sorted(bought)))])
                if legal(problem, plan):
                    best = max(best, plan.objective)
    return best


@pytest.mark.parametrize("team_id, seed, bank", [(1, 0, 0), (2, 1, 5), (3, 2, 20), (4, 3, 2), (5, 4, 60), (6, 5, 10)])
def test_one_transfer_is_the_best_of_all(team_id, seed, bank):
    problem = a_problem(team_id, 1, 40, seed, bank=bank, free_transfers=1)
    solved = solve(problem, EXACT)
    assert solved.plan is not None
    assert solved.status == "optimal"
    assert legal(problem, solved.plan)
    assert solved.plan.objective == pytest.approx(best_of_all(problem, 1), rel=GAP)


@pytest.mark.parametrize("seed, free, hits", [(10, 2, 0), (11, 1, 1), (12, 0, 2)])
def test_two_transfers_with_and_without_hits_are_the_best_of_all(seed, free, hits):
    problem = a_problem(1, 1, 12, seed, bank=25, free_transfers=free, max_hits=hits)
    solved = solve(problem, EXACT)
    assert solved.plan is not None
    assert solved.plan.objective == pytest.approx(best_of_all(problem, 2), rel=GAP)


@pytest.mark.parametrize("seed, hits", [(1, 0), (2, 0), (3, 1), (4, 0)])
def test_two_gameweeks_of_a_toy_league_are_the_best_of_all(seed, hits):
    problem = toy(seed, 2, (1, 2, 2, 2) if hits else (1, 3, 3, 3), max_hits=hits, free_transfers=1)
    solved = solve(problem, EXACT)
    assert solved.plan is not None
    assert legal(problem, solved.plan)
    assert solved.plan.objective == pytest.approx(Search(problem, 2).best(), abs=1e-6)


@pytest.mark.parametrize("seed, free", [(11, 1), (12, 1), (13, 0)])
def test_three_gameweeks_of_a_toy_league_are_the_best_of_all(seed, free):
    """25 players; transfers are saved, prices locked, players bought back."""
    problem = toy(seed, 3, (1, 3, 3, 3), free_transfers=free, worth=replace(toy(seed, 1).worth, free_transfer=0.3))
    solved = solve(problem, EXACT)
    assert solved.plan is not None
    assert legal(problem, solved.plan)
    assert solved.plan.objective == pytest.approx(Search(problem, 2).best(), abs=1e-6)


def unrisen(problem: Problem) -> Problem:
    """The same with nobody's price risen: what a free hit may buy does not depend on whom it keeps then."""
    return replace(problem, selling={element: problem.cost[element] for element in problem.owned})


@pytest.mark.parametrize("chip", ["wildcard", "freehit", "bboost", "3xc"])
@pytest.mark.parametrize("seed", [21, 22])
def test_a_chip_is_played_in_its_best_gameweek_of_all(chip, seed):
    problem = toy(seed, 2, (1, 1, 1, 2), free_transfers=1, chips=(ChipCopy(chip, (0, 1), 2.0),))
    problem = with_free_hits(unrisen(problem) if chip == "freehit" else problem, EXACT)
    best = Search(problem, 1).best()
    for solved in (solve(problem, EXACT), solve_with_chips(problem, EXACT, start=hold_plan(problem))):
        assert solved.plan is not None
        assert solved.status == "optimal"
        assert legal(problem, solved.plan)
        assert solved.plan.objective == pytest.approx(best, abs=1e-6)
        assert solved.bound == pytest.approx(best, rel=1e-5)


def test_all_chips_at_once_are_the_best_of_all_combinations():
    copies = (ChipCopy("freehit", (0, 1), 1.0), ChipCopy("bboost", (0, 1), 0.5), ChipCopy("3xc", (1,), 0.5))
    problem = with_free_hits(unrisen(toy(31, 2, (1, 1, 1, 2), free_transfers=1, chips=copies)), EXACT)
    best = Search(problem, 1).best()
    for solved in (solve(problem, EXACT), solve_with_chips(problem, EXACT, start=hold_plan(problem))):
        assert solved.plan is not None
        assert [week.chip for week in solved.plan.weeks] != [None, None]
        assert solved.plan.objective == pytest.approx(best, abs=1e-6)


# ---- transfers already made, and what a chip makes of them


KEPT = {"wildcard": 9.0, "freehit": 7.0, "bboost": 1.0}


def two_made(before: Problem) -> Problem:
    """After the first two transfers that can be paid and keep the clubs; one was free, so they have cost 4 points."""
    for first, second in combinations(single_swaps(before, before.owned), 2):
        if len({*first, *second}) == 4:
            sold, bought = {first[0], second[0]}, {first[1], second[1]}
            selling = {e: price for e, price in before.selling.items() if e not in sold}
            selling |= {element: before.cost[element] for element in bought}
            bank = before.bank + sum(before.selling[e] for e in sold) - sum(before.cost[e] for e in bought)
            after = replace(before, selling=selling, bank=bank, free_transfers=0)
            if legal(after, hold_plan(after)):
                return after
    raise AssertionError("no two transfers are possible")


def begun_in_every_way(seed: int) -> tuple[Problem, dict[str | None, float]]:
    """A league with two transfers made, and the best of all plans that begin without, with a wildcard, with a free hit."""
    spare = (0, 1, 1, 2)
    before = unrisen(toy(seed, 2, spare, free_transfers=1, bank=30))
    after = two_made(before)
    chips = tuple(ChipCopy(name, (0, 1), kept) for name, kept in KEPT.items())
    problem = replace(after, chips=chips)
    undone = {"selling": before.selling, "bank": before.bank}
    instead = {
        "wildcard": problem.beginning_with("wildcard", free_transfers=1, given_back=4.0),
        "freehit": problem.beginning_with("freehit", free_transfers=1, given_back=4.0, **undone),
    }

    def copies(first: str | None) -> tuple[ChipCopy, ...]:
        late = tuple(
            ChipCopy(n, (0, 1) if n == "bboost" and not first else (1,), k) for n, k in KEPT.items() if n != first
        )
        return late if first is None else (ChipCopy(first, (0,), KEPT[first]), *late)

    best: dict[str | None, float] = {None: Search(replace(after, chips=copies(None)), 1).best()}
    for chip, start in (("wildcard", replace(after, free_transfers=1)), ("freehit", before)):
        best[chip] = 4.0 + Search(replace(start, chips=copies(chip), played={0: chip}), 1).best()
    return with_free_hits(replace(problem, instead=instead), EXACT), best


def test_a_chip_that_gives_back_what_transfers_have_cost_is_weighed_with_it():
    """Their points, their free transfer, and with a free hit the squad before them: against every plan of toy leagues."""
    ways = set()
    for seed in (70, 71, 78, 79):
        problem, best = begun_in_every_way(seed)
        bounds: list[float | None] = []

        def watch(sight: Sight, bounds: list[float | None] = bounds) -> bool:
            bounds.append(sight.bound)
            return True

        solved = solve_with_chips(problem, EXACT, start=hold_plan(problem), watch=watch)
        assert solved.plan is not None
        assert solved.status == "optimal"
        chip = solved.plan.weeks[0].chip
        chip = chip if chip in problem.instead else None
        ways.add(chip)
        assert solved.plan.objective == pytest.approx(max(best.values()), abs=1e-6)
        assert best[chip] == pytest.approx(max(best.values()), abs=1e-6)
        assert solved.bound == pytest.approx(max(best.values()), rel=1e-5)
        assert all(bound is None or bound >= solved.plan.objective - 1e-6 for bound in bounds)
        assert make_plan(problem, solved.plan.moves) == solved.plan
    assert ways == {None, "wildcard", "freehit"}


def chips_of_three_gameweeks(seed: int = 32) -> Problem:
    copies = (
        ChipCopy("wildcard", (0, 1, 2), 3.0),
        ChipCopy("freehit", (1, 2), 2.0),
        ChipCopy("bboost", (0, 1, 2), 1.0),
        ChipCopy("3xc", (0, 1, 2), 1.0),
    )
    return with_free_hits(toy(seed, 3, (0, 1, 1, 1), free_transfers=1, chips=copies), EXACT)


@pytest.mark.parametrize("seed", [32, 33])
def test_deciding_the_chips_first_finds_what_one_search_over_everything_finds(seed):
    """Three gameweeks with all four chips; every bound said on the way is true."""
    problem = chips_of_three_gameweeks(seed)
    sights: list[Sight] = []

    def watch(sight: Sight) -> bool:
        sights.append(sight)
        return True

    whole = solve(problem, EXACT)
    cases = solve_with_chips(problem, EXACT, start=hold_plan(problem), watch=watch)
    assert whole.plan is not None
    assert cases.plan is not None
    assert (whole.status, cases.status) == ("optimal", "optimal")
    assert cases.bound == pytest.approx(cases.plan.objective, rel=1e-5)
    assert cases.plan.objective == pytest.approx(whole.plan.objective, rel=1e-5)
    assert legal(problem, cases.plan)
    for sight in sights:
        assert sight.bound is None or sight.bound >= whole.plan.objective * (1 - 1e-6)


def test_a_search_over_chips_repeats_under_a_limit_on_nodes_and_says_what_is_open():
    problem = chips_of_three_gameweeks()
    hold = hold_plan(problem)
    first, second = (solve_with_chips(problem, Limits(60, 1e-6, nodes=6), start=hold) for _ in range(2))
    assert first.status == "node_limit"
    assert (first.plan, first.bound, first.nodes) == (second.plan, second.bound, second.nodes)
    best = solve_with_chips(problem, EXACT, start=hold).plan
    assert best is not None
    assert first.plan is not None
    assert first.bound is not None
    assert first.plan.objective <= best.objective <= first.bound


def test_a_search_over_chips_that_is_stopped_keeps_the_plan_it_began_with():
    problem = chips_of_three_gameweeks()
    hold = hold_plan(problem)
    stopped = solve_with_chips(problem, EXACT, start=hold, watch=lambda _sight: False)
    assert stopped.plan is not None
    assert stopped.plan.objective >= hold.objective
    assert stopped.status in ("interrupted", "optimal")


@pytest.mark.parametrize("seed", range(21, 27))
def test_a_free_hit_with_risen_prices_is_legal_and_close_to_the_best_of_all(seed):
    """Which of the risen players are sold before it, the model decides between none and all."""
    problem = toy(seed, 2, (1, 1, 1, 2), free_transfers=1, chips=(ChipCopy("freehit", (1,), -5.0),))
    solved = solve(with_free_hits(problem, EXACT), EXACT)
    best = Search(problem, 1).best()
    assert solved.plan is not None
    assert legal(problem, solved.plan)
    assert best - 1.0 <= solved.plan.objective <= best + 1e-6


@pytest.mark.parametrize("seed", [41, 42, 43])
def test_locked_players_stay_and_banned_ones_stay_away_and_it_is_still_the_best(seed):
    free = toy(seed, 2, free_transfers=1)
    plan = solve(free, EXACT).plan
    assert plan is not None
    sold = {element for week in plan.weeks for element in week.sold}
    bought = {element for week in plan.weeks for element in week.bought}
    problem = replace(free, locked=frozenset(sorted(sold & free.owned)[:1]), banned=frozenset(sorted(bought)[:1]))
    solved = solve(problem, EXACT)
    assert solved.plan is not None
    assert not problem.locked & {element for week in solved.plan.weeks for element in week.sold}
    assert not problem.banned & {element for week in solved.plan.weeks for element in week.bought}
    assert solved.plan.objective == pytest.approx(Search(problem, 2).best(), abs=1e-6)


def every_first_move(problem: Problem, transfers: int) -> dict[Moves, float]:
    """Each legal first move of a one-gameweek problem with its objective."""
    swaps, worth = single_swaps(problem, problem.owned), {Moves(): hold_plan(problem).objective}
    for count in range(1, transfers + 1):
        for chosen in combinations(swaps, count):
            moves = Moves(tuple(sorted({a for a, _ in chosen})), tuple(sorted({b for _, b in chosen})))
            if len(moves.sold) == len(moves.bought) == count:
                plan = make_plan(problem, [moves])
                if legal(problem, plan):
                    worth[moves] = plan.objective
    return worth


def test_the_next_best_first_moves_are_the_next_best_of_all():
    problem = toy(51, 1, free_transfers=2)
    ranked = sorted(every_first_move(problem, 2).values(), reverse=True)
    excluded: list[Moves] = []
    for rank in range(4):
        solved = solve(problem, EXACT, excluded=excluded)
        assert solved.plan is not None
        assert solved.plan.objective == pytest.approx(ranked[rank], abs=1e-6)
        assert solved.plan.weeks[0].moves not in excluded
        excluded.append(solved.plan.weeks[0].moves)


def test_a_plan_is_worth_what_the_solver_says_it_is():
    """The points added up from the moves alone are the solver's objective: at the optimum its bound meets them."""
    for seed in range(60, 66):
        copies = (ChipCopy("wildcard", (0, 1, 2), 3.0), ChipCopy("3xc", (1, 2), 1.0), ChipCopy("freehit", (1,), 2.0))
        problem = with_free_hits(toy(seed, 3, chips=copies, max_hits=1), EXACT)
        solved = solve(problem, EXACT)
        assert solved.plan is not None
        assert solved.bound == pytest.approx(solved.plan.objective, rel=2e-6)
        again = solve(problem, EXACT, start=solved.plan)
        assert again.plan is not None
        assert again.plan.objective == pytest.approx(solved.plan.objective, rel=2e-6)


@pytest.mark.parametrize("chip", [None, "wildcard", "freehit", "bboost", "3xc"])
def test_the_bound_is_never_below_the_plan_and_meets_it(chip):
    copies = (ChipCopy(chip, (0, 1)),) if chip else ()
    problem = with_free_hits(replace(a_problem(2, 2, 30, 30, max_hits=1), chips=copies), Limits(20))
    seen: list[Sight] = []

    def watch(sight: Sight) -> bool:
        seen.append(sight)
        return True

    solved = solve(problem, Limits(20), start=hold_plan(problem), watch=watch)
    assert solved.plan is not None
    assert solved.bound is not None
    assert legal(problem, solved.plan)
    for sight in seen:
        # A true bound is no lower than the best plan there is, found or not yet.
        assert sight.bound is None or sight.bound >= solved.plan.objective - 1e-6
    assert solved.plan.objective - 1e-6 <= solved.bound <= solved.plan.objective * (1 + GAP)


def test_more_room_is_never_worth_less():
    problem = a_problem(3, 3, 30, 40, max_hits=1)
    plans = [solve(problem, Limits(20), open_weeks=range(weeks)).plan for weeks in (0, 1, 3)]
    worth = [plan.objective for plan in plans if plan is not None]
    assert worth[0] == pytest.approx(hold_plan(problem).objective, rel=1e-6)
    assert worth == sorted(worth)


def test_squads_of_free_hits_take_the_time_they_have_together_and_may_be_stopped():
    copies = (ChipCopy("freehit", (0, 1, 2)), ChipCopy("3xc", (1,)))
    problem = toy(31, 3, (1, 1, 1, 2), free_transfers=1, chips=copies)
    assert with_free_hits(problem, Limits(60.0)).free_hits.keys() == {0, 1, 2}
    late = with_free_hits(problem, Limits(0.0))
    assert (late.free_hits, late.chips) == ({}, copies[1:])
    # A small squad may be found before anybody looks; what is missing is taken from the chip all the same.
    stopped = with_free_hits(problem, Limits(60.0), lambda _sight: False)
    assert {week for copy in stopped.chips if copy.name == "freehit" for week in copy.weeks} == stopped.free_hits.keys()


def test_a_free_hit_hands_its_squad_back():
    fixed = replace(a_problem(1, 3, 40, 50), chips=(ChipCopy("freehit", (0,)),), played={0: "freehit"})
    problem = with_free_hits(fixed, Limits(20))
    plan = solve(problem, Limits(20)).plan
    assert plan is not None
    first, second = plan.weeks[:2]
    assert first.squad != problem.owned
    assert (first.hits, first.chip) == (0, "freehit")
    kept = problem.owned - set(second.sold) | set(second.bought)
    assert second.squad == kept
    assert second.free_transfers == problem.free_transfers


@pytest.mark.parametrize("at, nodes", [(0.0, None), (0.2, None)])
def test_a_solve_that_is_stopped_returns_within_a_second_with_what_it_had(at, nodes):
    """However deep in a cut round the solver is: its thread is left behind."""
    problem = replace(a_problem(1, 5, 80, 80, max_hits=1), chips=(ChipCopy("wildcard", (0, 1, 2, 3, 4)),))
    began = time.monotonic()

    def watch(_sight: Sight) -> bool:
        return time.monotonic() - began < at

    hold = hold_plan(problem)
    solved = solve(problem, Limits(60, nodes=nodes), start=hold, watch=watch)
    assert time.monotonic() - began < at + 5  # 0.4 s when the machine is idle
    assert solved.status == "interrupted"
    assert solved.plan is None or solved.plan.objective >= hold.objective - 1e-6


def test_a_limit_on_nodes_gives_the_same_plan_each_time():
    copies = tuple(ChipCopy(name, (0, 1), 4.0) for name in ("wildcard", "bboost", "3xc"))
    problem = replace(a_problem(1, 2, 20, 90, max_hits=1), chips=copies)
    first, second = (solve(problem, Limits(60, 0.0, nodes=2)) for _ in range(2))
    assert first.status == second.status == "node_limit"
    assert (first.plan, first.bound, first.nodes) == (second.plan, second.bound, second.nodes)


def test_a_squad_above_the_club_limit_may_hold_but_not_trade_on():
    problem = a_problem(5, 1, 40, 60, bank=50, free_transfers=1)
    clubs = dict(problem.club)
    four = sorted(problem.owned)[:4]
    clubs.update(dict.fromkeys(four, 99))
    moved = Problem(**{**problem.__dict__, "club": clubs})
    plan = solve(moved, Limits(20), start=hold_plan(moved)).plan
    assert plan is not None
    week = plan.weeks[0]
    assert not week.bought or sum(clubs[element] == 99 for element in week.squad) <= 3
    held = solve(moved, Limits(20), open_weeks=()).plan
    assert held is not None
    assert held.weeks[0].squad == moved.owned


def test_a_player_sold_and_bought_back_is_paid_in_full():
    problem = a_problem(1, 3, 24, 70, bank=100)
    sold, bought = next(
        (a, b)
        for a, b in product(sorted(problem.owned), problem.elements)
        if b not in problem.owned and problem.position[a] == problem.position[b]
    )
    plan = make_plan(problem, [Moves((sold,), (bought,)), Moves((bought,), (sold,)), Moves((sold,), (bought,))])
    lost = problem.cost[sold] - problem.selling[sold]
    assert plan.weeks[1].bank == problem.bank - lost
    assert plan.weeks[2].bank == problem.bank - lost + problem.cost[sold] - problem.cost[bought]


@pytest.mark.parametrize("free", [1, 2])
def test_a_gameweek_whose_transfers_are_counted_but_cost_nothing_is_solved_exactly(free):
    """As around the World Cup of 2022: no hits, and what is left of the free transfers is carried on as ever."""
    problem = a_problem(horizon=2, candidates=12, seed=5, free_transfers=free)
    rules = problem.rules.model_copy(update={"free_of_charge": (12,), "free_transfers_max": 2})
    problem = replace(problem, rules=rules)
    solved = solve(problem, EXACT, start=hold_plan(problem))
    assert solved.plan is not None
    assert solved.plan.weeks[0].hits == 0
    assert solved.bound == pytest.approx(solved.plan.objective, rel=2e-6)
    held = hold_plan(problem)
    assert held.weeks[1].free_transfers == 2
    assert solved.plan.weeks[1].free_transfers == (2 if len(solved.plan.weeks[0].bought) < free else 1)


def test_a_process_that_solves_prints_nothing():
    code = (
        "from tests.fpl.toy import toy; from engine_worker.engines.fpl.solver import Limits, solve;"
        "assert solve(toy(1, 1), Limits(60)).plan"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert (ran.stdout, ran.stderr) == (b"", b"")


@pytest.mark.parametrize("seed", [51, 52, 53])
def test_no_first_move_is_worth_more_than_the_relaxation_grants_its_purchases(seed):
    """Every first move there is, against the bound by which the proof leaves purchases out."""
    problem = toy(seed, 1, free_transfers=2)
    model = Model(problem, (0,))
    highs = prepared(program_of(model), [False] * len(model.integer))
    highs.run()
    solution, worth = highs.getSolution(), highs.getInfo().objective_function_value
    narrow = narrowing(model, worth, solution.col_value, solution.col_dual)
    moves = every_first_move(problem, 2)
    best = max(moves.values())
    for done, objective in moves.items():
        for element in done.bought:
            assert objective <= narrow.most[0, element] + 1e-6
    assert {(0, element) for done, worth in moves.items() if worth > best - 1e-9 for element in done.bought} <= (
        narrow.above(best - 1e-6)
    )
    assert len(narrow.above(best)) < len(narrow.above(-1e9)), "it leaves nobody out, so it proves nothing"

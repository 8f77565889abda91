"""Ways to decide a gameweek, for the replay of past seasons: this engine's, and what it has to beat."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine_worker.engines.fpl.backtest.scenes import ENGINE, FORM, OFFICIAL, Scene
from engine_worker.engines.fpl.build import POSTURES
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.pool import cut_pool
from engine_worker.engines.fpl.problem import Moves, Problem, WeekPlan, hold_plan, make_plan
from engine_worker.engines.fpl.rules import selling_price
from engine_worker.engines.fpl.solver import Limits, solve

_DEFAULTS = FplParams(team_id=1)


@dataclass(frozen=True)
class Team:
    """What a manager has before a deadline: element → price paid, bank in tenths, free transfers."""

    paid: Mapping[int, int]
    bank: int
    free_transfers: int


@dataclass(frozen=True)
class Chosen:
    """What is done in the gameweek, and whether its proof came within the limits."""

    week: WeekPlan
    proven: bool = True


Strategy = Callable[[Scene, Team, Limits], Chosen]


def engine(scene: Scene, team: Team, limits: Limits) -> Chosen:
    """The first gameweek of the engine's plan, as it ships: balanced posture, no chips."""
    return _planned(posed(scene, team, ENGINE), limits)


def official(scene: Scene, team: Team, limits: Limits) -> Chosen:
    """The same solver with the same worth of hits and saved transfers, on the API's own forecasts."""
    return _planned(posed(scene, team, OFFICIAL), limits)


def hold(scene: Scene, team: Team, _limits: Limits) -> Chosen:
    """No transfer; eleven, bench and captain by the engine's forecasts."""
    return Chosen(hold_plan(posed(scene, team, ENGINE, 1)).weeks[0])


def greedy(scene: Scene, team: Team, _limits: Limits) -> Chosen:
    """For each free transfer the swap that gains most form; eleven and captain by form. No hits."""
    problem = posed(scene, team, FORM, 1, cut=False)
    squad, bank = set(problem.owned), problem.bank
    sold: list[int] = []
    bought: list[int] = []
    for _ in range(min(team.free_transfers, 15)):
        swap = _best_swap(problem, squad, bank, bought)
        if swap is None:
            break
        leaving, coming = swap
        squad = squad - {leaving} | {coming}
        bank += problem.selling[leaving] - problem.cost[coming]
        sold.append(leaving)
        bought.append(coming)
    return Chosen(make_plan(problem, [Moves(tuple(sold), tuple(bought))]).weeks[0])


STRATEGIES: dict[str, Strategy] = {"engine": engine, "hold": hold, "form-greedy": greedy, "MILP on ep_next": official}


def posed(scene: Scene, team: Team, belief: str, horizon: int | None = None, *, cut: bool = True) -> Problem:
    """The problem of a team with these expectations; chips are left out."""
    gameweeks = scene.collected.gameweeks[:horizon]
    expected = [scene.beliefs[belief][gameweek] for gameweek in gameweeks]
    players = [*scene.collected.players, *(scene.gone[e] for e in team.paid if e in scene.gone)]
    xp = [{player.element: one.get(player.element, 0.0) for player in players} for one in expected]
    owned = set(team.paid)
    pool = cut_pool(players, xp, owned) if cut else sorted(players, key=lambda player: player.element)
    rules = scene.collected.rules
    return Problem(
        rules=rules,
        gameweeks=tuple(gameweeks),
        elements=tuple(player.element for player in pool),
        position={player.element: player.position for player in pool},
        club={player.element: player.club for player in pool},
        cost={player.element: player.now_cost for player in pool},
        selling={
            player.element: selling_price(team.paid[player.element], player.now_cost, rules.sell_on_fee)
            for player in pool
            if player.element in owned
        },
        xp=dict(zip(gameweeks, xp, strict=True)),
        bank=team.bank,
        free_transfers=team.free_transfers,
        max_hits=_DEFAULTS.max_hits,
        banned=frozenset(scene.gone),
        worth=POSTURES[_DEFAULTS.risk_posture],
    )


def _planned(problem: Problem, limits: Limits) -> Chosen:
    start = hold_plan(problem)
    solved = solve(problem, limits, start=start)
    plan = start if solved.plan is None else solved.plan
    return Chosen(plan.weeks[0], solved.status == "optimal")


def _best_swap(problem: Problem, squad: set[int], bank: int, bought: list[int]) -> tuple[int, int] | None:
    form = problem.xp[problem.gameweeks[0]]
    clubs = [problem.club[element] for element in squad]
    full = {club for club in clubs if clubs.count(club) >= problem.rules.club_limit}
    best, found = 0.0, None
    for leaving in sorted(squad - set(bought)):
        money, place, club = bank + problem.selling[leaving], problem.position[leaving], problem.club[leaving]
        for coming in problem.elements:
            gain = form[coming] - form[leaving]
            if gain <= best or problem.position[coming] != place or problem.cost[coming] > money:
                continue
            allowed = problem.club[coming] == club or problem.club[coming] not in full
            if allowed and coming not in squad and coming not in problem.banned:
                best, found = gain, (leaving, coming)
    return found

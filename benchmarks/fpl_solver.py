"""How long the plans of the engine `fpl` take, what they give up against the truth of the made-up season, how large decisions are.

`python -m benchmarks.fpl_solver times`, `… chips`, `… regret` and `… sizes`. Seconds are those of one busy processor (and by
the clock).
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev

from engine_worker.engines.fpl import fpl
from engine_worker.engines.fpl.build import build_problem
from engine_worker.engines.fpl.chip_search import solve_with_chips
from engine_worker.engines.fpl.collecting import collect
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.pool import cut_pool, project_pool
from engine_worker.engines.fpl.problem import Plan, Problem, hold_plan, make_plan
from engine_worker.engines.fpl.projections import project
from engine_worker.engines.fpl.receipt import canonical
from engine_worker.engines.fpl.solver import Limits, Solved, solve, with_free_hits
from engine_worker.engines.fpl.source import Reading
from engine_worker.engines.fpl.source_directory import DirectorySource
from engine_worker.engines.fpl.synthetic import SyntheticSource
from events.values import decode, encode
from phaseline import Context

MANAGERS = (1, 2, 3, 4, 5, 6)
# Season and manager: those with four, three and two chips left.
CHIPS_OF = ((1, 1), (1, 2), (1, 3), (1, 4), (2, 5), (3, 1), (4, 6))
# What is asked of five gameweeks with chips.
ASKED_S = 15


def posed(seed: int, team_id: int, horizon: int, truth: Mapping[int, Mapping[int, float]] | None = None) -> Problem:
    """The problem of a made-up manager. With `truth` the pool has the best of both beliefs."""
    params = FplParams(team_id=team_id, horizon=horizon)
    collected = collect(params, "synthetic", Reading(SyntheticSource(seed)))
    rows = project(collected).rows
    believed = {week: {row.element: row.xp for row in rows if row.gameweek == week} for week in collected.gameweeks}
    owned = {holding.element for holding in collected.squad.holdings}
    kept = {player.element for player in cut_pool(collected.players, list(believed.values()), owned)}
    if truth is not None:
        known = [
            {p.element: truth[week].get(p.element, 0.0) for p in collected.players} for week in collected.gameweeks
        ]
        kept |= {player.element for player in cut_pool(collected.players, known, owned)}
    return build_problem(collected, [row for row in rows if row.element in kept], params)


def timed(problem: Problem, start: Plan | None, limit_s: float) -> tuple[Solved, float]:
    """A solve and the processor seconds it took."""
    began = time.process_time()
    solved = solve(problem, Limits(limit_s), start=start)
    return solved, time.process_time() - began


def timed_with_chips(problem: Problem, start: Plan, limit_s: float) -> tuple[Solved, float]:
    """As `timed`, with all chips and the squads of free hits."""
    began = time.process_time()
    solved = solve_with_chips(with_free_hits(problem, Limits(limit_s)), Limits(limit_s), start=start)
    return solved, time.process_time() - began


def times(limit_s: float, managers: Sequence[int]) -> None:
    """Prints a table of solve times for horizons with and without chips."""
    print("horizon chips | CPU s median worst | clock s worst | proven")
    for horizon, chips in ((1, False), (3, False), (3, True), (5, False), (5, True)):
        took, clocks, proven = [], [], 0
        for team_id in managers:
            problem = posed(1, team_id, horizon)
            plain, began = problem.without_chips(), time.monotonic()
            if chips:
                solved, seconds = timed_with_chips(problem, hold_plan(problem), limit_s)
            else:
                solved, seconds = timed(plain, hold_plan(plain), limit_s)
            took.append(seconds)
            clocks.append(time.monotonic() - began)
            proven += solved.status == "optimal"
        ranked = sorted(took)
        print(
            f"{horizon} {'wc fh bb tc' if chips else 'none':11} | {ranked[len(ranked) // 2]:6.2f} {ranked[-1]:6.2f} "
            f"| {max(clocks):6.2f} | {proven} of {len(managers)}",
            flush=True,
        )


def chips(limit_s: float, data: Path | None) -> None:
    """Prints, for each of some squads, what five gameweeks with every chip it has take, from the plan that does nothing."""
    posers: dict[str, Callable[[], Problem]] = {
        f"made-up {seed}, manager {team_id}": partial(posed, seed, team_id, 5) for seed, team_id in CHIPS_OF
    }
    for manifest in sorted(data.glob("*/MANIFEST.json")) if data else []:
        posers[manifest.parent.name] = partial(saved, manifest)
    print("squad | chips | CPU s | clock s | objective | bound | chips played | proven")
    within = 0
    for name, poser in posers.items():
        problem = poser()
        began = time.monotonic()
        solved, seconds = timed_with_chips(problem, hold_plan(problem), limit_s)
        clock = time.monotonic() - began
        assert solved.plan is not None
        assert solved.bound is not None
        within += solved.status == "optimal" and clock <= ASKED_S
        played = " ".join(f"{week.chip}@{week.gameweek}" for week in solved.plan.weeks if week.chip)
        print(
            f"{name} | {len(problem.chips)} | {seconds:.1f} | {clock:.1f} "
            f"| {solved.plan.objective:.3f} | {solved.bound:.3f} | {played or '-'} | {solved.status == 'optimal'}",
            flush=True,
        )
    print(f"{within} of {len(posers)} proven within {ASKED_S} s by the clock")


def saved(manifest: Path) -> Problem:
    """Five gameweeks of the manager whose pages were saved."""
    params = FplParams(team_id=json.loads(manifest.read_text())["entry"], horizon=5)
    collected = collect(params, "saved", Reading(DirectorySource(manifest.parent)))
    return build_problem(collected, project_pool(collected).rows, params)


def regret(seeds: int, horizon: int, managers: Sequence[int]) -> None:
    """Prints what following the projections gives up, in points of the true expectation over the horizon."""
    lost, gained, possible = [], [], []
    for seed in range(1, seeds + 1):
        truth: dict[int, dict[int, float]] = {}
        for (element, week), points in SyntheticSource(seed).truth(horizon).expected.items():
            truth.setdefault(week, {})[element] = points
        for team_id in managers:
            believed = posed(seed, team_id, horizon, truth).without_chips()
            xp = {week: {e: truth[week].get(e, 0.0) for e in believed.elements} for week in believed.gameweeks}
            true = replace(believed, xp=xp)
            chosen, best = solve(believed, Limits(60)).plan, solve(true, Limits(60)).plan
            assert chosen is not None
            assert best is not None
            followed = make_plan(true, chosen.moves)
            lost.append(best.objective - followed.objective)
            gained.append(followed.objective - hold_plan(true).objective)
            possible.append(best.objective - hold_plan(true).objective)
    for name, values in (("given up", lost), ("gained over holding", gained), ("possible over holding", possible)):
        half = 1.96 * stdev(values) / len(values) ** 0.5
        print(f"{name}: {mean(values):.2f} ± {half:.2f} points over {horizon} gameweeks ({len(values)} squads)")


def sizes(managers: Sequence[int]) -> None:
    """Prints the bytes of the canonical decision with every param but the horizon at its default."""
    for horizon in (5, 8):
        found, projections = [], []
        for team_id in managers:
            params = fpl.params.model_validate({"team_id": team_id, "horizon": horizon, "source": "synthetic"})
            text = canonical(fpl.run(params, Context(fpl.phases, lambda _message: None)))
            found.append(len(text))
            projections.append(len(encode(decode(text)["projections"])))
        print(
            f"horizon {horizon}: {min(found) / 1000:.1f} to {max(found) / 1000:.1f} KB, "
            f"of that projections {min(projections) / 1000:.1f} to {max(projections) / 1000:.1f} ({len(found)} decisions)",
            flush=True,
        )


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("times", "chips", "regret", "sizes"))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--horizon", type=int, default=3)
    parser.add_argument("--limit-s", type=float, default=120)
    parser.add_argument("--managers", type=int, default=len(MANAGERS))
    parser.add_argument("--data", type=Path, help="folder of saved gameweeks, looked at by `chips` as well")
    asked = parser.parse_args()
    if asked.what == "times":
        times(asked.limit_s, MANAGERS[: asked.managers])
    elif asked.what == "chips":
        chips(asked.limit_s, asked.data)
    elif asked.what == "sizes":
        sizes(MANAGERS[: asked.managers])
    else:
        regret(asked.seeds, asked.horizon, MANAGERS[: asked.managers])


if __name__ == "__main__":
    main()

"""One attempt at a decision, phase by phase. What a phase finds is recorded; the phases after it use only that."""

import time
from functools import cache
from importlib.metadata import version
from typing import Any

from engine_worker.engines.fpl.analysis import Analysis
from engine_worker.engines.fpl.build import build_problem
from engine_worker.engines.fpl.checks import examine, opened
from engine_worker.engines.fpl.collecting import Collected, collect
from engine_worker.engines.fpl.decision import DecisionOutput
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.planning import Ladder
from engine_worker.engines.fpl.pool import project_pool
from engine_worker.engines.fpl.projections import Projected
from engine_worker.engines.fpl.report import Report
from engine_worker.engines.fpl.reused import Reused
from engine_worker.engines.fpl.source import BrokenSource, Reading
from engine_worker.engines.fpl.sources import configured
from events.clock import Clock, rfc3339
from phaseline import Context, Previous, RetryAfter

# Players of each position shown as a partial result when the projections are there.
_SHOWN_PER_POSITION = 5
# The site shows a page instead of data for some tens of minutes after each deadline.
_UPDATING_S = 60.0


def decide(params: FplParams, ctx: Context, engine_version: int) -> DecisionOutput:
    """Runs the five phases. Raises `Cancelled` when asked to stop; the best decision so far was offered by then."""
    clock = _Clock()
    phases = Reused(params, engine_version, ctx)
    ctx.phase("initializing")
    source_name = params.source or next(iter(configured()))
    reading = cache(lambda: opened(params))  # not opened at all when everything it would give is recorded
    if phases.found("collecting_data") is None:
        _examine_again(params, reading())
    ctx.partial(
        "plan",
        {
            "source": source_name,
            "horizon": params.horizon,
            "time_limit_s": params.time_limit_s,
            "reused_phases": phases.names,
        },
    )
    clock.lap("initializing")

    recorded = phases.run("collecting_data", lambda: _collect(params, source_name, reading(), ctx.previous))
    collected = Collected.model_validate(recorded)
    ctx.partial("squad_state", _squad_shown(collected))
    ctx.raise_if_cancelled()
    clock.lap("collecting_data")

    projected = Projected.model_validate(phases.run("projecting_points", lambda: project_pool(collected)))
    ctx.partial("projections", _projections_shown(collected, projected))
    ctx.raise_if_cancelled()
    clock.lap("projecting_points")

    solver = f"highspy {version('highspy')}"
    report = Report(collected, projected.rows, params, engine_version, solver)
    problem = build_problem(collected, projected.rows, params)

    def offer(analysis: Analysis) -> None:
        ctx.best(report.written(analysis, problem, rfc3339(Clock().now_ms()), clock.seconds, draws=False))

    found = phases.run("analyzing_transfers", lambda: Ladder(problem, params, ctx).climb(offer))
    analysis = Analysis.model_validate(found)
    clock.lap("analyzing_transfers")

    ctx.phase("finalizing")
    return report.written(analysis, problem, rfc3339(Clock().now_ms()), clock.seconds, draws=True)


def _examine_again(params: FplParams, reading: Reading) -> None:
    """The source may have changed since submit, or this worker may be configured otherwise than the gateway.

    Raises `InvalidParams`, and `RetryAfter` while the source is being updated.
    """
    try:
        examine(params, reading)
    except BrokenSource as broken:
        raise _later(broken) from broken


def _collect(params: FplParams, source_name: str, reading: Reading, previous: Previous | None) -> Collected:
    try:
        return collect(params, source_name, reading, previous)
    except BrokenSource as broken:
        raise _later(broken) from broken


def _later(broken: BrokenSource) -> RetryAfter:
    wait_s = max(broken.retry_after_s or 0.0, _UPDATING_S)
    return RetryAfter(f"the source cannot be read now: {broken}", wait_s)


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[phase] = now - self._last
        self._last = now


def _squad_shown(collected: Collected) -> dict[str, Any]:
    names = {player.element: player.name for player in collected.players}
    squad = collected.squad
    return {
        "players": [{**holding._asdict(), "name": names[holding.element]} for holding in squad.holdings],
        "bank": squad.bank,
        "free_transfers": squad.free_transfers,
        "chips_available": squad.chips,
        "replay": squad.replay,
    }


def _projections_shown(collected: Collected, projected: Projected) -> dict[str, Any]:
    """The best of each position in the first gameweek, by name."""
    players = {player.element: player for player in collected.players}
    first = [row for row in projected.rows if row.gameweek == collected.gameweeks[0]]
    best: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(first, key=lambda row: (-row.xp, row.element)):
        player = players[row.element]
        shown = best.setdefault(f"position_{player.position}", [])
        if len(shown) < _SHOWN_PER_POSITION:
            shown.append({"element": row.element, "name": player.name, "xp": round(row.xp, 2), "p90": row.p90})
    return {"gameweek": collected.gameweeks[0], "best": best}

"""The engine `fpl`: a weekly Fantasy Premier League decision within the rules of the game.

Importable without numpy, a solver or a source; what needs them is imported when a job is checked or runs.
"""

from engine_worker.engines.fpl.decision import DecisionOutput
from engine_worker.engines.fpl.params import FplParams
from phaseline import Context, engine

VERSION = 11
PHASES = {
    "initializing": 10,
    "collecting_data": 25,
    "projecting_points": 50,
    "analyzing_transfers": 90,
    "finalizing": 100,
}


def check(params: FplParams) -> None:
    """See `engine_worker.engines.fpl.checks`. Raises `InvalidParams`."""
    from engine_worker.engines.fpl import checks

    checks.check(params)


@engine("fpl", version=VERSION, phases=PHASES, check=check, subject=("team_id", "source"))
def fpl(params: FplParams, ctx: Context) -> DecisionOutput:
    """Decides transfers, captain and lineup for the next Fantasy Premier League gameweek."""
    from engine_worker.engines.fpl.attempt import decide

    return decide(params, ctx, VERSION)

"""The engine `fpl`: a weekly Fantasy Premier League decision within the rules of the game.

Importable without numpy or a solver; what needs them is imported when a job runs.
"""

from engine_worker.engines.fpl.checks import check
from engine_worker.engines.fpl.decision import DecisionOutput
from engine_worker.engines.fpl.params import FplParams
from phaseline import Context, engine

VERSION = 10
PHASES = {
    "initializing": 10,
    "collecting_data": 25,
    "projecting_points": 50,
    "analyzing_transfers": 90,
    "finalizing": 100,
}


@engine("fpl", version=VERSION, phases=PHASES, check=check, subject=("team_id", "source"))
def fpl(params: FplParams, ctx: Context) -> DecisionOutput:
    """Decides transfers, captain and lineup for the next Fantasy Premier League gameweek."""
    from engine_worker.engines.fpl.attempt import decide

    return decide(params, ctx, VERSION)

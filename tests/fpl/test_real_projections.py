"""The walk-forward over real seasons; collected only where PHASELINE_FPL_DATA names them.

Keep `REAL_DATA_CHECKS` in `__init__.py` in step: a run without the data lists what it did not check.
"""

import os
from pathlib import Path

import pytest

from engine_worker.engines.fpl.backtest.fitting import fit, prepare
from engine_worker.engines.fpl.backtest.history import past_seasons
from engine_worker.engines.fpl.backtest.walk import Judged, judged, walk
from engine_worker.engines.fpl.fitted import shipped

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def regulars() -> dict[str, Judged]:
    """Every season but the first, by parameters fitted on the ones before it."""
    seasons = [prepare(season) for season in past_seasons(Path(os.environ["PHASELINE_FPL_DATA"]))]
    found = {}
    for number, season in enumerate(seasons[1:], start=1):
        walked = walk(season, fit(seasons[:number]))
        found[season.season.name] = judged(walked.part(walked.regular))
    return found


def test_forecasts_of_seasons_not_fitted_on_beat_the_ones_of_the_api_and_are_calibrated(regulars):
    assert len(regulars) >= 3
    for of in regulars.values():
        engine = of.measures["engine"]
        assert of.gain.rmse >= 0.25
        assert of.gain.low > 0
        assert abs(engine.bias) < 0.1
        assert 0.9 < engine.slope < 1.1
        assert 0.77 < of.within < 0.83


def test_who_plays_is_told_in_seasons_of_five_substitutes(regulars):
    """In seasons of three, fewer are sure to come on; docs/fpl.md has what could be told of those at all."""
    told = {name: of.brier_play for name, of in regulars.items() if name >= "2022-23"}
    assert len(told) >= 2
    for brier in told.values():
        assert brier <= 0.085


def test_the_calibration_shipped_is_that_of_such_forecasts(regulars):
    calibration = shipped().calibration
    assert calibration is not None
    mine = [regulars[name] for name in calibration.seasons]
    count = sum(of.measures["engine"].n for of in mine)
    assert calibration.n == count
    squared = sum(of.measures["engine"].n * of.measures["engine"].rmse ** 2 for of in mine)
    assert calibration.rmse == pytest.approx((squared / count) ** 0.5, abs=0.005)
    brier = sum(of.measures["engine"].n * of.brier_play for of in mine) / count
    assert calibration.brier_play == pytest.approx(brier, abs=0.001)

"""Real-data tests are collected only where the data is; the others share a few decisions, each made once."""

import os
from pathlib import Path

import pytest

from tests.fpl.builders import EVERYTHING, Made, decided
from tests.fpl.past import BEFORE, NAME, season_into

collect_ignore = (
    []
    if os.environ.get("PHASELINE_FPL_DATA")
    else ["test_real_data.py", "test_real_oracles.py", "test_real_projections.py"]
)


@pytest.fixture(autouse=True)
def _only_the_made_up_season(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHASELINE_FPL_SOURCES", raising=False)


@pytest.fixture(scope="session")
def made() -> Made:
    """The decision of the first made-up manager over two gameweeks, with everything a decision has."""
    return decided({"team_id": 1, "horizon": 2, **EVERYTHING})


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("history")
    season_into(root, NAME, 1)
    return root


@pytest.fixture(scope="session")
def two_seasons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    season_into(root, BEFORE, 2)
    season_into(root, NAME, 1)
    return root

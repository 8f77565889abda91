"""Real-data tests are collected only where the data is; the others share a few decisions, each made once."""

import os

import pytest

from tests.fpl.builders import Made, decided

collect_ignore = [] if os.environ.get("PHASELINE_FPL_DATA") else ["test_real_data.py"]


@pytest.fixture(autouse=True)
def _only_the_made_up_season(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHASELINE_FPL_SOURCES", raising=False)


@pytest.fixture(scope="session")
def made() -> Made:
    """The decision of the first made-up manager over two gameweeks."""
    return decided({"team_id": 1, "horizon": 2})

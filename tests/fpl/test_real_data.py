"""Checks on saved responses of real gameweeks; collected only where PHASELINE_FPL_DATA names them.

Keep `REAL_DATA_CHECKS` in `__init__.py` in step: a run without the data lists what it did not check.
"""

import csv
import gzip
import io
import json
import os
from pathlib import Path

import pytest

from engine_worker.engines.fpl.collecting import Collected, collect
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.projections import project
from engine_worker.engines.fpl.source import Reading
from engine_worker.engines.fpl.sources import source_named
from engine_worker.engines.fpl.synthetic import SyntheticSource
from tests.fpl.builders import assert_within_the_rules, decided

DATA = Path(os.environ["PHASELINE_FPL_DATA"])
SNAPSHOTS = {
    folder.name: json.loads((folder / "MANIFEST.json").read_text())
    for folder in sorted(DATA.iterdir())
    if (folder / "MANIFEST.json").is_file()
}
each_snapshot = pytest.mark.parametrize("name", SNAPSHOTS)


@pytest.fixture(autouse=True)
def _saved_gameweeks(monkeypatch):
    listed = ",".join(f"{name}=directory:{DATA / name}" for name in SNAPSHOTS)
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", listed)


def gathered(name: str) -> Collected:
    params = FplParams(team_id=SNAPSHOTS[name]["entry"], horizon=1)
    return collect(params, name, Reading(source_named(name)))


def season_rows(season: str, gameweek: int) -> dict[int, list[dict[str, str]]]:
    """What happened in one gameweek: element → list of its match rows."""
    rows: dict[int, list[dict[str, str]]] = {}
    text = gzip.decompress((DATA / "seasons" / season / "gws" / f"gw{gameweek}.csv.gz").read_bytes()).decode()
    for row in csv.DictReader(io.StringIO(text)):
        rows.setdefault(int(row["element"]), []).append(row)
    return rows


@each_snapshot
def test_the_made_up_season_has_every_field_of_the_real_one(name):
    """Newer seasons have more; what the API had then it has now, but for the text of a number it left out."""
    for page, lists in (("bootstrap-static", ("elements", "teams", "events")), ("fixtures", ("",))):
        real = json.loads((DATA / name / f"{page}.json").read_text())
        ours = SyntheticSource(1).answer(page).body
        for part in lists:
            theirs, mine = (body[part][0] if part else body[0] for body in (real, ours))
            assert {field for field, value in theirs.items() if _differs(field, value, mine)} == set()


def _differs(field: str, value: object, ours: dict[str, object]) -> bool:
    """Whether a field is missing, or text on one side only."""
    if field not in ours:
        return True
    return None not in (value, ours[field]) and isinstance(value, str) != isinstance(ours[field], str)


@each_snapshot
def test_bank_and_hits_of_a_real_manager_are_derived_again(name):
    replay = gathered(name).squad.replay
    assert replay.mismatches == []
    assert replay.weeks_exact == replay.weeks_checked == SNAPSHOTS[name]["gameweek"] - 1


@each_snapshot
def test_the_decision_on_a_real_gameweek_is_within_the_rules(name):
    made = decided({"team_id": SNAPSHOTS[name]["entry"], "source": name, "horizon": 2})
    assert_within_the_rules(made.decision)
    assert made.decision.header.gameweek == SNAPSHOTS[name]["gameweek"]
    assert made.decision.transfer_plan.objective_pts >= made.decision.hold_plan.objective_pts


@each_snapshot
def test_projections_order_players_better_than_the_ones_of_the_api(name):
    """Squared error over players who played lately, against what happened; a gross error of the model would show."""
    ground = gathered(name)
    season, gameweek = SNAPSHOTS[name]["season"], SNAPSHOTS[name]["gameweek"]
    rows = season_rows(season, gameweek)
    actual = {element: sum(int(row["total_points"]) for row in played) for element, played in rows.items()}
    official = {e["id"]: float(e["ep_next"]) for e in Reading(source_named(name)).body("bootstrap-static")["elements"]}
    lately = {player.element for player in ground.players if player.played_recent > 0.3}
    ours = {row.element: row.xp for row in project(ground).rows}

    def squared_error(forecast: dict[int, float]) -> float:
        return sum((forecast[e] - actual.get(e, 0)) ** 2 for e in lately) / len(lately)

    assert len(lately) > 200
    assert squared_error(ours) < squared_error(official)

"""Tables and drawings of the walk-forward say what its rows say."""

import csv
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from engine_worker.engines.fpl.backtest.history import past_seasons
from engine_worker.engines.fpl.backtest.plots import write
from engine_worker.engines.fpl.backtest.tables import tables_of
from engine_worker.engines.fpl.backtest.walk import FORECASTS, Walked
from tests.cli.program import in_process
from tests.fpl.past import NAME

FILES = ["chances.csv", "chances.svg", "errors.csv", "errors.svg", "tenths.csv", "tenths.svg"]
# The bars and lines are drawn by matplotlib, whose first import builds a list of the machine's fonts.
pytestmark = pytest.mark.filterwarnings("ignore:Matplotlib is building the font cache")


def walked(count: int = 200) -> Walked:
    """Regulars whose engine forecast is right on average, one in five of them no regular."""
    rng = np.random.default_rng(3)
    forecast, chance = rng.uniform(0, 8, count), rng.uniform(0, 1, count)
    happened = np.round(forecast)
    return Walked(
        gameweek=np.repeat(np.arange(count // 20), 20),
        early=np.ones(count),
        position=np.tile([1, 2, 3, 4], count // 4),
        regular=np.arange(count) % 5 > 0,
        happened=happened,
        played=rng.uniform(0, 1, count) < chance,
        p_play=chance,
        p10=happened,
        p90=happened,
        forecast={name: forecast + place for place, name in enumerate(FORECASTS)},
    )


def test_tenths_chances_and_errors_are_of_all_regulars_and_of_nobody_else():
    rows = walked()
    tables = tables_of({NAME: rows})
    of_engine = [tenth for tenth in tables.tenths if tenth.forecast == "engine"]
    assert [tenth.tenth for tenth in of_engine] == list(range(1, 11))
    assert sum(tenth.n for tenth in of_engine) == sum(chances.n for chances in tables.chances) == 160
    assert sum(error.n for error in tables.errors if error.forecast == "form") == 160
    expected = [tenth.expected for tenth in of_engine]
    assert expected == sorted(expected)
    for tenth in of_engine:
        assert tenth.scored == pytest.approx(tenth.expected, abs=0.5)
    for chances in tables.chances:
        assert chances.low <= chances.chance <= chances.low + 0.1
    weight = sum(chances.n * chances.played for chances in tables.chances) / 160
    assert weight == pytest.approx(np.mean(rows.played[rows.regular]), abs=1e-3)
    bias = {error.forecast: error.bias for error in tables.errors if error.position == "MID"}
    assert [bias[name] - bias["engine"] for name in FORECASTS] == pytest.approx([0, 1, 2, 3], abs=0.01)


def test_an_interval_is_as_wide_as_gameweeks_differ_not_players():
    """Ten gameweeks in each of which everybody scores the same: two hundred players tell no more than one of them."""
    rows, gameweek = walked(2000), np.repeat(np.arange(10), 200)
    of_gameweek = np.random.default_rng(5).normal(4, 2, 10)
    tables = tables_of({NAME: replace(rows, gameweek=gameweek, happened=of_gameweek[gameweek])}, ["engine"])
    half = 1.96 * float(np.std(of_gameweek, ddof=1)) / 10**0.5
    for tenth in tables.tenths:
        assert tenth.give_or_take == pytest.approx(half, rel=0.25)


def test_the_same_tables_are_drawn_byte_for_byte_the_same(tmp_path):
    tables = tables_of({"2021-22": walked(), NAME: walked(100)})
    written = write(tables, tmp_path / "one")
    assert sorted(file.name for file in written) == FILES
    again = write(tables, tmp_path / "two")
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in written]
    for file in written[1::2]:
        text = "".join(ET.parse(file).getroot().itertext())
        assert "2021-22" in text
        assert NAME in text


def test_the_command_writes_them_where_it_is_told(folder: Path, tmp_path):
    told = in_process("fpl", "backtest", "--data", str(folder), "--plots", str(tmp_path / "plots"), "-o", "jsonl")
    assert told.code == 0, told.err
    assert sorted(file.name for file in (tmp_path / "plots").iterdir()) == FILES
    with (tmp_path / "plots" / "tenths.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["season"] for row in rows} == {past_seasons(folder)[0].name}
    assert {row["forecast"] for row in rows} == {"engine", "ep_next"}

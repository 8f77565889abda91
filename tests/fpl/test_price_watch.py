"""Prices that may move are those the API forecasts; where it forecasts none, those that have moved and go on."""

import io
import json

import pytest
from rich.console import Console

from engine_worker.engines.fpl.cards import Cards
from engine_worker.engines.fpl.collecting import PriceForecast, collect
from engine_worker.engines.fpl.decision import PriceWatch
from engine_worker.engines.fpl.params import FplParams
from engine_worker.engines.fpl.prices import price_watch
from engine_worker.engines.fpl.receipt import canonical
from engine_worker.engines.fpl.source import Reading
from engine_worker.engines.fpl.source_directory import DirectorySource
from engine_worker.engines.fpl.sources import source_named
from phaseline import render_fpl
from tests.fpl.builders import Made, collected, decided, projected

TIMES = ["2026-11-26T23:00:00Z", "2026-11-27T23:00:00Z", "2026-11-28T23:00:00Z"]
OWNED = sorted(holding.element for holding in collected().squad.holdings)
STRANGERS = [player.element for player in collected().players if player.element not in OWNED]


def watched(changes, bought=()):
    """What is watched when some players' fields are these and nobody else's price is said to move."""
    ground = collected()
    players = [player._replace(**changes.get(player.element, {})) for player in ground.players]
    ground = ground.model_copy(update={"players": players, "price_times": TIMES})
    return price_watch(ground, Cards(ground, projected().rows), bought)


def test_the_surest_and_soonest_change_comes_first_and_says_when():
    first, second, third, bought = *OWNED[:3], STRANGERS[0]
    found = watched(
        {
            first: {"price_forecast": (PriceForecast(1, -2, -80.0), PriceForecast(2, -4, -103.0))},
            second: {"price_forecast": (PriceForecast(0, 5, 120.5), PriceForecast(1, 5, 130.0))},
            third: {"price_forecast": ()},
            bought: {"price_forecast": (PriceForecast(1, 4, 101.0),)},
        },
        {bought},
    )
    assert [(one.element, one.direction, one.likelihood, one.by, one.percent, one.owned) for one in found] == [
        (second, "rise", 5, TIMES[0], 120.5, True),
        (bought, "rise", 4, TIMES[1], 101.0, False),
        (first, "fall", -4, TIMES[2], -103.0, True),
    ]


def test_without_a_forecast_a_price_that_moved_and_is_still_pushed_is_watched_without_a_likelihood():
    fell, rose, turned, still = OWNED[:4]
    found = watched(
        {
            fell: {"price_forecast": None, "price_moved": -1, "transfers_in": 10, "transfers_out": 500},
            rose: {"price_forecast": None, "price_moved": 2, "transfers_in": 900, "transfers_out": 5},
            turned: {"price_forecast": None, "price_moved": 1, "transfers_in": 10, "transfers_out": 500},
            still: {"price_forecast": None, "price_moved": 0, "transfers_in": 99999, "transfers_out": 0},
        }
    )
    assert [(one.element, one.direction, one.basis, one.likelihood, one.by) for one in found] == [
        (rose, "rise", "transfers", None, None),
        (fell, "fall", "transfers", None, None),
    ]
    assert [(one.moved, one.transfers_in, one.transfers_out) for one in found] == [(2, 900, 5), (-1, 10, 500)]


def test_players_neither_owned_nor_bought_are_nobodys_concern_and_the_list_is_short():
    sure = {"price_forecast": (PriceForecast(0, 5, 110.0),)}
    assert watched({STRANGERS[0]: sure}) == []
    assert len(watched(dict.fromkeys(OWNED, sure))) == 10


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"direction": "fall"}, "a fall of likelihood 3"),
        ({"likelihood": None}, "a rise of likelihood None"),
        ({"likelihood": 6}, "less than or equal to 5"),
        ({"basis": "transfers"}, "a rise after a price that moved by 0"),
    ],
)
def test_a_price_that_points_both_ways_cannot_be_written(changes, problem):
    (card,) = watched({OWNED[0]: {"price_forecast": (PriceForecast(0, 3, 90.0),)}})
    with pytest.raises(ValueError, match=problem):
        PriceWatch.model_validate(card.model_dump() | changes)


def test_the_made_up_season_forecasts_no_change_and_none_is_watched(made: Made):
    assert made.decision.price_watch == []


def test_the_command_line_shows_the_bench_and_the_prices(made: Made):
    sure, moved = OWNED[:2]
    found = watched(
        {
            sure: {"price_forecast": (PriceForecast(0, -5, -110.0),)},
            moved: {"price_forecast": None, "price_moved": 1, "transfers_in": 900, "transfers_out": 5},
        }
    )
    decision = made.decision.model_copy(update={"price_watch": found})
    console = Console(width=200, record=True, file=io.StringIO())
    render_fpl.decision(console, decision.model_dump(mode="json"))
    text = console.export_text()
    assert f"{decision.lineup.autosub_xp:.2f} more from substitutes" in text
    assert f"may fall at {TIMES[0]}: likelihood -5 of ±5 by the game's own forecast" in text
    assert "may rise again: 900 transfers in, 5 out this gameweek" in text


@pytest.fixture
def forecasting(tmp_path, monkeypatch):
    """The made-up season in a folder, its API forecasting as that of 2026/27 does. Gives the folder and who is forecast."""
    season = source_named("synthetic")
    paths = ["bootstrap-static", "fixtures", "entry/1/history", "entry/1/transfers", "entry/1/event/11/picks"]
    bodies = {path: json.loads(json.dumps(season.answer(path).body)) for path in paths}
    bootstrap, fits, calibrating = bodies["bootstrap-static"], OWNED[0], OWNED[1]
    bootstrap["game_config"]["settings"]["price_change_deadlines"] = TIMES
    for element in bootstrap["elements"]:
        if element["id"] in (fits, calibrating):
            element["price_change_calibrating"] = element["id"] == calibrating
            element["price_change_projections"] = [
                {"offset": 0, "projected_percent": "-61.0", "likelihood": -1},
                {"offset": 1, "projected_percent": "-101.4", "likelihood": -4},
                {"offset": 2, "projected_percent": "-140.0", "likelihood": -4},
            ]
    for path, body in bodies.items():
        file = tmp_path / f"{path}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(body))
    monkeypatch.setenv("PHASELINE_FPL_SOURCES", f"saved=directory:{tmp_path}")
    return tmp_path, fits


def test_a_decision_watches_what_the_api_forecasts_and_decides_the_same_twice(forecasting):
    _, fits = forecasting
    params = {"team_id": 1, "horizon": 1, "available_chips": []}
    decision = decided(params).decision
    (watch,) = decision.price_watch
    assert (watch.element, watch.direction, watch.likelihood, watch.by) == (fits, "fall", -4, TIMES[1])
    assert (watch.basis, watch.percent, watch.owned) == ("forecast", -101.4, True)
    assert canonical(decided(params).decision) == canonical(decision)


@pytest.mark.parametrize("said", ["soon", [{"offset": 0}], [{"offset": 0, "projected_percent": None, "likelihood": 3}]])
def test_a_forecast_of_another_shape_is_none(forecasting, said):
    folder, fits = forecasting
    file = folder / "bootstrap-static.json"
    bootstrap = json.loads(file.read_text())
    next(one for one in bootstrap["elements"] if one["id"] == fits)["price_change_projections"] = said
    file.write_text(json.dumps(bootstrap))
    ground = collect(FplParams(team_id=1), "saved", Reading(DirectorySource(folder)))
    assert next(player for player in ground.players if player.element == fits).price_forecast is None

"""Fits the parameters of the projections on past seasons. Needs scikit-learn, which the engine itself does not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from engine_worker.engines.fpl.backtest.history import REGULAR_MINUTES, Deadline, Outcome, PastSeason, ground
from engine_worker.engines.fpl.chances import chances
from engine_worker.engines.fpl.collecting import Collected, PlayerRow
from engine_worker.engines.fpl.features import features, log_odds
from engine_worker.engines.fpl.fitted import Chance, Fitted, Line, Node, Rates, versioned
from engine_worker.engines.fpl.playing import drifted, drifts, pulled
from engine_worker.engines.fpl.projections import (
    ATTACKING,
    CHEAPEST,
    RATED,
    Match,
    actions_per_90,
    expected_components,
    match_of,
    minutes_if_plays,
    own_rates,
    points_distribution,
    rate_per_90,
)
from engine_worker.engines.fpl.ratings import Ratings, fit_ratings
from engine_worker.engines.fpl.seasons import GOALKEEPER, POSITION_NAMES
from engine_worker.engines.fpl.staying import GROUPS

# What is tried; the best on the training seasons is taken.
_HALF_LIVES = (60.0, 120.0, 240.0, 480.0)
_PRIOR_MATCHES = (4.0, 8.0, 12.0, 18.0)
_PULLS = (0.0, 0.5, 1.0)
_PRIOR_NINETIES = (3.0, 6.0, 12.0, 24.0, 48.0)
_SHAPES = tuple((base, growth) for base in (0.2, 0.3, 0.5, 0.8) for growth in (0.05, 0.15, 0.3))
_LOST_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Whoever never plays says little about those who are bought: his rows count for so much, and those of regulars for one more.
_WEIGHT_ABSENT = 0.2
# The share of his club's matches from which a player's points shape the line and the spread.
_OFTEN = 0.25
# The inverse strength of the ridge on standardised features.
_C = 0.3
# Small trees, each on half of the examples and a third of the features at a split: they are to differ.
_BOOSTED: dict[str, Any] = {
    "n_estimators": 150, "learning_rate": 0.06, "max_leaf_nodes": 8, "max_depth": None, "min_samples_leaf": 30,
    "subsample": 0.5, "max_features": 0.3, "random_state": 1,
}  # fmt: skip
_HOLDS = 0.8
# What a season counts beside the one after it: rules on substitutes, and how clubs use them, change.
_OLDER = 0.5


class NoFit(Exception):
    """The seasons given have no deadline to learn from."""


@dataclass(frozen=True)
class Prepared:
    """One season in the form fits ask for; what does not depend on other seasons is computed once."""

    season: PastSeason
    grounds: list[tuple[Deadline, Collected]]

    @cached_property
    def examples(self) -> list["Example"]:
        """A row for each player and deadline with exactly one match."""
        return [example for index in range(len(self.grounds)) for example in self._of(index)]

    def _of(self, index: int) -> Iterator["Example"]:
        deadline, collected = self.grounds[index]
        at: dict[int, list[tuple[int, bool]]] = {}
        for match in collected.fixtures:
            at.setdefault(match.home, []).append((match.away, True))
            at.setdefault(match.away, []).append((match.home, False))
        for player, now, _ in features(collected):
            matches = at.get(player.club, [])
            outcome = self.season.outcomes.get((player.element, deadline.gameweek), Outcome())
            if len(matches) == 1:
                yield Example(index, player, now, *matches[0], outcome)

    @cached_property
    def deviances(self) -> dict[tuple[float, float], float]:
        """(half-life, prior matches) → how badly ratings told the goals of each coming gameweek (less is better)."""
        known = {(one.home, one.away): (one.home_goals, one.away_goals) for one in self.season.scores}
        return {
            (half_life, prior): sum(_deviance(collected, half_life, prior, known) for _, collected in self.grounds)
            for half_life in _HALF_LIVES
            for prior in _PRIOR_MATCHES
        }

    def regular(self, example: "Example") -> bool:
        """Whether he is of the pool forecasts are judged by."""
        lately = self._lately[example.ground]
        return lately.get(example.player.element, 0) >= REGULAR_MINUTES and example.player.status in ("a", "d")

    @cached_property
    def _lately(self) -> list[Mapping[int, int]]:
        return [self.season.minutes_lately(deadline.gameweek) for deadline, _ in self.grounds]

    def ratings(self, half_life: float, prior: float) -> list[Ratings]:
        """At each deadline."""
        return [fit_ratings(sorted(c.clubs), c.scores, prior, half_life) for _, c in self.grounds]


class Example(NamedTuple):
    """A player before a deadline, and what he then did; `ground` is the place of the deadline in its season."""

    ground: int
    player: PlayerRow
    features: dict[str, float]
    opponent: int
    home: bool
    outcome: Outcome

    @property
    def often(self) -> float:
        """The share of his club's matches he has been in, the last ones more."""
        return 0.6 * self.player.played_recent + 0.4 * self.player.played_longer


class _Seen(NamedTuple):
    """An example with the ratings of its deadline put to use."""

    example: Example
    match: Match
    own: dict[str, tuple[float, float]]


def prepare(season: PastSeason, progress: Callable[[Deadline], None] = lambda _deadline: None) -> Prepared:
    """Reads a season."""
    grounds = []
    for deadline in season.deadlines():
        grounds.append((deadline, ground(deadline)))
        progress(deadline)
    return Prepared(season, grounds)


def fit(seasons: Sequence[Prepared]) -> Fitted:
    """The parameters that suit these seasons. Raises `NoFit`."""
    examples = [example for season in seasons for example in season.examples]
    if not examples or not any(example.outcome.minutes for example in examples):
        raise NoFit("no deadline to learn from")
    half_life, prior = min(_grid(_HALF_LIVES, _PRIOR_MATCHES), key=lambda pair: sum(s.deviances[pair] for s in seasons))
    worth = np.repeat(_worths(len(seasons)), [len(season.examples) for season in seasons])
    plays, hour = _plays(examples, worth), _an_hour(examples, worth)
    stay = _stay(seasons)
    long, short = _minutes(examples)
    seen = [_seen(season, season.ratings(half_life, prior)) for season in seasons]
    fitted = Fitted(
        version="",
        fitted_on=[season.season.name for season in seasons],
        half_life_days=half_life,
        prior_matches=prior,
        plays=plays,
        an_hour=hour,
        stay=stay,
        club_pull=_club_pull(seasons, plays, stay),
        minutes_long=long,
        minutes_short=short,
        rates=_rates([one for season in seen for one in season]),
        line=dict.fromkeys(POSITION_NAMES, Line(level=0.0, slope=1.0)),
        shape=_SHAPES[0],
        lost=_lost(examples),
    )
    fitted = fitted.model_copy(update={"line": _lines(fitted, seasons, seen)})
    return versioned(_rounded(fitted.model_copy(update=_spread(fitted, seasons, seen))))


def _grid(*axes: Sequence[float]) -> list[Any]:
    return [(one, other) for one in axes[0] for other in axes[1]]


def _deviance(
    collected: Collected, half_life: float, prior: float, known: dict[tuple[int, int], tuple[int, int]]
) -> float:
    ratings = fit_ratings(sorted(collected.clubs), collected.scores, prior, half_life)
    total = 0.0
    for match in collected.fixtures:
        if (match.home, match.away) in known:
            goals = known[match.home, match.away]
            for club, opponent, home, scored in (
                (match.home, match.away, True, goals[0]), (match.away, match.home, False, goals[1]),
            ):  # fmt: skip
                mean = ratings.goals(club, opponent, home)
                total += mean - scored * float(np.log(mean))
    return total


def _worths(count: int) -> list[float]:
    """What each of so many seasons counts, the oldest first."""
    return [_OLDER**age for age in reversed(range(count))]


def _plays(examples: Sequence[Example], worth: Any) -> Chance:
    weights = worth * np.array([_WEIGHT_ABSENT + example.often for example in examples])
    return _chance(examples, [example.outcome.minutes > 0 for example in examples], weights)


def _an_hour(examples: Sequence[Example], worth: Any) -> Chance:
    played = [example for example in examples if example.outcome.minutes]
    of_played = worth[[example.outcome.minutes > 0 for example in examples]]
    return _chance(played, [example.outcome.minutes >= 60 for example in played], of_played)


def _chance(examples: Sequence[Example], came: Sequence[bool], weights: Any) -> Chance:
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    names = sorted(examples[0].features)
    table = np.array([[example.features[name] for name in names] for example in examples])
    centre, scale = table.mean(axis=0), table.std(axis=0)
    # A flag nobody had says nothing.
    scale[scale < 1e-9] = np.inf
    model = LogisticRegression(C=_C, max_iter=1000).fit((table - centre) / scale, came, sample_weight=weights)
    slopes = model.coef_[0] / scale
    boosted = GradientBoostingClassifier(**_BOOSTED).fit(table, came, sample_weight=weights)
    usual = float(np.average(came, weights=weights))
    return Chance(
        intercept=float(model.intercept_[0] - slopes @ centre),
        weights=dict(zip(names, map(float, slopes), strict=True)),
        # What it begins with: the log-odds of everybody.
        base=log_odds(usual),
        trees=exported(boosted),
    )


def exported(boosted: Any) -> list[Node]:
    """The trees of scikit-learn as plain numbers, short ones: the file that ships is read by people too."""
    return [_node(trees[0].tree_, 0, boosted.learning_rate) for trees in boosted.estimators_]


def _node(tree: Any, node: int, rate: float) -> Node:
    low, high = int(tree.children_left[node]), int(tree.children_right[node])
    if low == high:
        return float(f"{rate * tree.value[node][0][0]:.4g}")
    least = float(f"{tree.threshold[node]:.6g}")
    return int(tree.feature[node]), least, _node(tree, low, rate), _node(tree, high, rate)


def _minutes(examples: Sequence[Example]) -> tuple[dict[int, float], dict[int, float]]:
    found: list[dict[int, float]] = []
    for long, ordinary in ((True, 85.0), (False, 25.0)):
        of = {place: [ordinary] for place in POSITION_NAMES}
        for example in examples:
            if example.outcome.minutes and (example.outcome.minutes >= 60) == long:
                of[example.player.position].append(example.outcome.minutes)
        found.append({place: float(np.mean(minutes)) for place, minutes in of.items()})
    return found[0], found[1]


def _lost(examples: Sequence[Example]) -> dict[int, float]:
    """The share of those who played whose points were fewer than the ones for appearing."""
    found = {}
    for position in POSITION_NAMES:
        played = [e.outcome for e in examples if e.player.position == position and e.outcome.minutes]
        found[position] = float(np.mean([one.points < _appearance(one.minutes) for one in played])) if played else 0.1
    return found


def _stay(seasons: Sequence[Prepared]) -> dict[int, float]:
    """The share of each group of `staying.py` that played again, each season counted as in the models."""
    # As if two more had been asked, one of whom came: no share is nothing or all.
    asked = dict.fromkeys(GROUPS, 2.0)
    came = dict.fromkeys(GROUPS, 1.0)
    for season, worth in zip(seasons, _worths(len(seasons)), strict=True):
        for _, collected in season.grounds:
            for group, (there, again) in collected.stayed.items():
                asked[group] += worth * there
                came[group] += worth * again
    return {group: came[group] / asked[group] for group in GROUPS}


def _club_pull(seasons: Sequence[Prepared], plays: Chance, stay: Mapping[int, float]) -> float:
    error = dict.fromkeys(_PULLS, 0.0)
    for season in seasons:
        told = chances(plays, [example.features for example in season.examples])
        drift = [drifts(collected, stay) for _, collected in season.grounds]
        by_ground: dict[int, list[tuple[Example, float]]] = {}
        for example, chance in zip(season.examples, told, strict=True):
            nobody = example.player.status == "s"
            his = 0.0 if nobody else drifted(chance, example.player, drift[example.ground])
            by_ground.setdefault(example.ground, []).append((example, his))
        for index, rows in by_ground.items():
            collected, chance_of = season.grounds[index][1], {e.player.element: c for e, c in rows}
            few = collected.model_copy(update={"players": [e.player for e, _ in rows]})
            for pull in _PULLS:
                moved = pulled(few, chance_of, pull)
                error[pull] += sum(
                    (_WEIGHT_ABSENT + e.often) * (moved[e.player.element] - (e.outcome.minutes > 0)) ** 2
                    for e, _ in rows
                )
    return min(error, key=lambda pull: error[pull])


def _seen(season: Prepared, ratings: Sequence[Ratings]) -> list[_Seen]:
    return [
        _Seen(
            example,
            match_of(ratings[example.ground], example.player.club, example.opponent, example.home),
            own_rates(example.player, ratings[example.ground]),
        )
        for example in season.examples
    ]


def _rates(seen: Sequence[_Seen]) -> dict[str, dict[int, Rates]]:
    nothing = Rates(prior_nineties=1, prior_own=0, prior_index=0, base=0, by_price=0, by_own=0, by_index=0)
    return {
        name: {
            place: _rate(
                name, [one for one in seen if one.example.player.position == place and one.example.outcome.minutes]
            )
            if name != "saves" or place == GOALKEEPER
            else nothing
            for place in POSITION_NAMES
        }
        for name in RATED
    }


def _rate(name: str, seen: Sequence[_Seen]) -> Rates:
    """By least squares of what he did on exposure times price, own rate and index; the prior with the least error."""
    from sklearn.linear_model import LinearRegression

    nineties = np.array([one.example.player.minutes / 90 for one in seen])
    own, index = (np.array([one.own[name][part] for one in seen], dtype=float) for part in (0, 1))
    price = np.array([(one.example.player.now_cost - CHEAPEST) / 10 for one in seen])
    ratio = [_ratio(name, one.match) for one in seen]
    exposure = np.array([one.example.outcome.minutes / 90 for one in seen]) * np.array(ratio)
    did = np.array([getattr(one.example.outcome, name) for one in seen], dtype=float)
    # Points deducted are fitted upside down: a rate in the right direction or none.
    sign = -1.0 if name == "cards" else 1.0
    priced = 0.0 if name in ("cards", "saves") else 1.0
    prior_own, prior_index = (float(total.sum() / max(nineties.sum(), 1.0)) for total in (own, index))
    best: tuple[float, Rates] | None = None
    for prior in _PRIOR_NINETIES:
        rate = sign * (own + prior * prior_own) / (nineties + prior)
        by_index = (index + prior * prior_index) / (nineties + prior)
        table = exposure[:, None] * np.column_stack([np.ones(len(seen)), priced * price, rate, by_index])
        model = LinearRegression(positive=True, fit_intercept=False).fit(table, sign * did)
        error = float(np.sum((model.predict(table) - sign * did) ** 2))
        if best is None or error < best[0]:
            base, by_price, by_own, by_index_ = map(float, model.coef_)
            found = Rates(
                prior_nineties=prior, prior_own=prior_own, prior_index=prior_index, base=sign * base,
                by_price=sign * by_price, by_own=by_own, by_index=sign * by_index_,
            )  # fmt: skip
            best = (error, found)
    assert best is not None
    return best[1]


def _ratio(name: str, match: Match) -> float:
    if name in ATTACKING:
        return match.scored_ratio
    return match.conceded_ratio if name == "saves" else 1.0


def _expected(fitted: Fitted, rates: dict[str, dict[int, Rates]], season: Prepared, seen: Sequence[_Seen]) -> Any:
    """Rows of p_play, p_60, expected rest before the line, for `seen`."""
    rows = [one.example.features for one in seen]
    plays, hours = chances(fitted.plays, rows), chances(fitted.an_hour, rows)
    found = []
    for one, chance, hour in zip(seen, plays, hours, strict=True):
        player, scoring = one.example.player, season.grounds[one.example.ground][1].rules.scoring
        of = {name: rate_per_90(by[player.position], player, *one.own[name]) for name, by in rates.items()}
        minutes = minutes_if_plays(fitted, player.position, hour)
        parts = expected_components(scoring, player, of | {"actions": actions_per_90(player)}, one.match, hour, minutes)
        found.append((chance, chance * hour, sum(parts) - parts.appearance))
    return np.array(found)


def _lines(fitted: Fitted, seasons: Sequence[Prepared], seen: Sequence[list[_Seen]]) -> dict[int, Line]:
    """One line a position, each season forecast by the rates of the others where there are others."""
    from sklearn.linear_model import LinearRegression

    tables, targets, places, worths = [], [], [], []
    for index, season in enumerate(seasons):
        others = [one for place, rows in enumerate(seen) if place != index for one in rows]
        rates = _rates(others) if others else fitted.rates
        often = [one for one in seen[index] if one.example.often >= _OFTEN and one.example.player.status in ("a", "d")]
        expected = _expected(fitted, rates, season, often)
        tables.append(np.column_stack([expected[:, 0], expected[:, 0] * expected[:, 2]]))
        targets.append([one.example.outcome.points - _appearance(one.example.outcome.minutes) for one in often])
        places.append([one.example.player.position for one in often])
        worths.append(np.full(len(often), _worths(len(seasons))[index]))
    table, target, place, worth = (np.concatenate(part) for part in (tables, targets, places, worths))
    found = {}
    for position in POSITION_NAMES:
        chosen = place == position
        model = LinearRegression(fit_intercept=False)
        level, slope = model.fit(table[chosen], target[chosen], sample_weight=worth[chosen]).coef_
        found[position] = Line(level=float(level), slope=float(slope))
    return found


def _appearance(minutes: int) -> int:
    return 0 if not minutes else 2 if minutes >= 60 else 1


def _spread(fitted: Fitted, seasons: Sequence[Prepared], seen: Sequence[list[_Seen]]) -> dict[str, Any]:
    """The spread whose P10 to P90 hold nearest to four fifths; of those as near, the likeliest."""
    rows = []
    for season, of in zip(seasons, seen, strict=True):
        regular = [one for one in of if season.regular(one.example)]
        for one, (chance, hour, rest) in zip(regular, _expected(fitted, fitted.rates, season, regular), strict=True):
            position = one.example.player.position
            line = fitted.line[position]
            rest_points = max(line.level + line.slope * rest, 0.0)
            rows.append((chance, hour, rest_points, fitted.lost[position], max(one.example.outcome.points, 0)))
    chance, hour, rest, lost, points = np.array(rows).T
    best: tuple[tuple[float, float], dict[str, Any]] | None = None
    for base, growth in _SHAPES:
        for share in _LOST_SHARES:
            # The same arithmetic as for one player, on columns.
            table: Any = points_distribution(chance, hour, rest, 1, base + growth * rest, share * lost)
            table = np.array(table)
            below = np.cumsum(table, axis=0)
            low, high = (np.argmax(below >= part - 1e-9, axis=0) for part in (0.1, 0.9))
            held = float(np.mean((points >= low) & (points <= high)))
            told = np.log(np.maximum(table[points.astype(int), np.arange(len(points))], 1e-9))
            off = (round(abs(held - _HOLDS), 2), -float(np.mean(told)))
            if best is None or off < best[0]:
                of_position = {place: share * value for place, value in fitted.lost.items()}
                best = (off, {"shape": (base, growth), "lost": of_position})
    assert best is not None
    return best[1]


def _rounded(fitted: Fitted) -> Fitted:
    """Six digits are plenty, and keep the file small."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.6g}")
        if isinstance(value, dict):
            return {key: short(one) for key, one in value.items()}
        return [short(one) for one in value] if isinstance(value, list | tuple) else value

    return Fitted.model_validate(short(fitted.model_dump(mode="json")))

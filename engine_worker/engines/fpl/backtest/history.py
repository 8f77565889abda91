"""Past seasons in a folder, as they looked before each deadline.

    ROOT/seasons/2023-24/snapshots/20231027T082707Z_….csv.gz   `elements` at that moment, columns as in the API
    ROOT/seasons/2023-24/gws/gw10.csv.gz                        a row for each player and match, what happened
    ROOT/seasons/json/FPL_2324.json.gz                          `bootstrap-static` at the end: deadlines, clubs, settings
    ROOT/seasons/json/fixture_data_2324.json.gz                 `fixtures` at the end

Before a deadline only snapshots taken before it are used, and matches kicked off before it. One thing is known too early:
the fixture list is the final one, so matches that were moved later stand where they were moved to.
"""

import csv
import gzip
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from engine_worker.engines.fpl.collecting import (
    Collected,
    Minutes,
    ScoreRow,
    coming_fixtures,
    players_of,
    scores_of,
)
from engine_worker.engines.fpl.seasons import LAST_GAMEWEEK, ruleset
from engine_worker.engines.fpl.sheets import fielded_of, stayed_of
from engine_worker.engines.fpl.state import SquadState

# Columns that stay text, as they are in the API.
_TEXT = frozenset((
    "ep_next", "ep_this", "form", "points_per_game", "selected_by_percent", "value_form", "value_season",
    "expected_goals", "expected_assists", "expected_goal_involvements", "expected_goals_conceded", "influence",
    "creativity", "threat", "ict_index", "price_change_percent", "first_name", "second_name", "web_name", "news",
    "news_added", "photo", "status", "penalties_text", "direct_freekicks_text", "corners_and_indirect_freekicks_text",
))  # fmt: skip
# A regular: an hour and a half in the last three gameweeks, and not ruled out.
REGULAR_MINUTES = 90
_DEDUCTED = {"yellow_cards": -1, "red_cards": -3, "own_goals": -2, "penalties_missed": -2, "penalties_saved": 5}
Body = dict[str, Any]


class NoHistory(Exception):
    """The folder has no season that can be walked."""


class Outcome(NamedTuple):
    """What one player did in one gameweek, all matches together; `cards` is the points of cards, own goals and penalties."""

    points: int = 0
    minutes: int = 0
    goals: int = 0
    assists: int = 0
    saves: int = 0
    bonus: int = 0
    cards: int = 0


@dataclass(frozen=True)
class Deadline:
    """The API as it stood before the deadline of `gameweek`."""

    season: str
    gameweek: int
    taken_at: datetime
    bootstrap: Body
    fixtures: list[Body]
    # Of matches played by then.
    minutes: Minutes

    @property
    def early_days(self) -> float:
        """How long before the deadline this was shown."""
        closes = next(event["deadline_time"] for event in self.bootstrap["events"] if event["is_next"])
        return (_moment(closes) - self.taken_at).total_seconds() / 86400


class PastSeason:
    """One season of the folder."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self._folder = root / "seasons" / name
        self._json = root / "seasons" / "json"

    def deadlines(self) -> Iterator[Deadline]:
        """Every gameweek after the first that has a snapshot between its deadline and the one before."""
        snapshots = sorted((_time_of(file), file) for file in (self._folder / "snapshots").glob("*.csv.gz"))
        times = {event["id"]: _moment(event["deadline_time"]) for event in self._end["events"]}
        for gameweek in sorted(times)[1:]:
            before = [(time, file) for time, file in snapshots if times[gameweek - 1] < time < times[gameweek]]
            if before:
                yield self._deadline(gameweek, times[gameweek], *before[-1])

    @cached_property
    def outcomes(self) -> dict[tuple[int, int], Outcome]:
        """(element, gameweek) → what he did; players without a match are missing."""
        found: dict[tuple[int, int], Outcome] = {}
        for gameweek, row in self._rows:
            key, did = (int(row["element"]), gameweek), _outcome(row)
            found[key] = Outcome(*map(sum, zip(found.get(key, Outcome()), did, strict=True)))
        return found

    @cached_property
    def minutes(self) -> Minutes:
        """Match → element → minutes, of the whole season."""
        found: dict[int, dict[int, int]] = defaultdict(dict)
        for _, row in self._rows:
            found[int(row["fixture"])][int(row["element"])] = int(row["minutes"])
        return dict(found)

    @cached_property
    def _rows(self) -> list[tuple[int, dict[str, str]]]:
        """Each row of what happened, with its gameweek."""
        files = sorted((self._folder / "gws").glob("gw*.csv.gz"))
        return [(int(file.name[2:].split(".")[0]), row) for file in files for row in _table(file)]

    @cached_property
    def scores(self) -> list[ScoreRow]:
        """All matches of the season."""
        return scores_of(self._fixtures)

    def minutes_lately(self, gameweek: int, weeks: int = 3) -> Mapping[int, int]:
        """Minutes of each player in the gameweeks before `gameweek`."""
        total: dict[int, int] = defaultdict(int)
        for (element, when), outcome in self.outcomes.items():
            if gameweek - weeks <= when < gameweek:
                total[element] += outcome.minutes
        return total

    def _deadline(self, gameweek: int, deadline: datetime, taken_at: datetime, file: Path) -> Deadline:
        events = [
            {**event, "finished": event["id"] < gameweek, "data_checked": event["id"] < gameweek,
             "is_previous": event["id"] == gameweek - 2, "is_current": event["id"] == gameweek - 1,
             "is_next": event["id"] == gameweek}
            for event in self._end["events"]
        ]  # fmt: skip
        elements = [_element(row) for row in _table(file)]
        fixtures = [_as_known(match, deadline) for match in self._fixtures]
        bootstrap = {**self._end, "events": events, "elements": elements}
        known = {match["id"] for match in fixtures if match["finished"]}
        minutes = {match: of_match for match, of_match in self.minutes.items() if match in known}
        return Deadline(self.name, gameweek, taken_at, bootstrap, fixtures, minutes)

    @cached_property
    def _end(self) -> Body:
        body: Body = self._read("FPL")
        return body

    @cached_property
    def _fixtures(self) -> list[Body]:
        body: list[Body] = self._read("fixture_data")
        return body

    def _read(self, kind: str) -> Any:
        return json.loads(gzip.decompress(_end_file(self._json, kind, self.name).read_bytes()))


def past_seasons(root: Path) -> list[PastSeason]:
    """The seasons of a folder, oldest first. Raises `NoHistory`."""
    names = sorted(folder.name for folder in (root / "seasons").glob("20*-*") if (folder / "snapshots").is_dir())
    complete = [name for name in names if _end_file(root / "seasons" / "json", "FPL", name).is_file()]
    if not complete:
        raise NoHistory(f"{root} has no seasons/YYYY-YY with snapshots, gws and their seasons/json")
    return [PastSeason(root, name) for name in complete]


def ground(deadline: Deadline, horizon: int = 1) -> Collected:
    """What the engine would have collected before a deadline for a plan over `horizon` gameweeks, without a squad."""
    bootstrap = deadline.bootstrap
    gameweeks = list(range(deadline.gameweek, min(deadline.gameweek + horizon - 1, LAST_GAMEWEEK) + 1))
    return Collected(
        source="backtest",
        snapshot_sha256="",
        snapshot_time=deadline.taken_at.isoformat(),
        rules=ruleset(bootstrap),
        gameweeks=gameweeks,
        deadline_time="",
        clubs={team["id"]: team["short_name"] for team in bootstrap["teams"]},
        players=players_of(bootstrap["elements"], deadline.fixtures, minutes=deadline.minutes),
        fixtures=coming_fixtures(deadline.fixtures, gameweeks),
        scores=scores_of(deadline.fixtures),
        fielded=fielded_of(deadline.fixtures),
        stayed=stayed_of(deadline.fixtures),
        squad=SquadState(holdings=[], bank=0, free_transfers=1, chips=[]),
    )


def _outcome(row: Mapping[str, str]) -> Outcome:
    did = {name: int(row[name]) for name in _DEDUCTED}
    return Outcome(
        int(row["total_points"]),
        int(row["minutes"]),
        int(row["goals_scored"]),
        int(row["assists"]),
        int(row["saves"]),
        int(row["bonus"]),
        sum(times * did[name] for name, times in _DEDUCTED.items()),
    )


def _end_file(folder: Path, kind: str, season: str) -> Path:
    return folder / f"{kind}_{season[2:4]}{season[5:7]}.json.gz"


def _element(row: Mapping[str, str]) -> Body:
    """One element with the API's types: text where it has text, null where a table says None."""
    return {name: _value(text) if name not in _TEXT or text == "None" else text for name, text in row.items()} | {
        "news": row.get("news") or "",
        "starts": _value(row["starts"]) if row.get("starts") else round(int(row["minutes"]) / 85),
    }


def _value(text: str) -> Any:
    if text in ("", "None"):
        return None
    if text in ("True", "False"):
        return text == "True"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _as_known(match: Body, deadline: datetime) -> Body:
    """A match as it stood before a deadline: not played if it began later, or never did."""
    kickoff = match["kickoff_time"]
    if kickoff and _moment(kickoff) < deadline:
        return match
    unplayed: Body = {
        "team_h_score": None,
        "team_a_score": None,
        "started": False,
        "finished": False,
        "minutes": 0,
        "stats": [],
    }
    return {**match, **unplayed, "finished_provisional": False}


def _table(file: Path) -> Iterator[dict[str, str]]:
    yield from csv.DictReader(io.StringIO(gzip.decompress(file.read_bytes()).decode()))


def _time_of(file: Path) -> datetime:
    return datetime.strptime(file.name.split("_")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)

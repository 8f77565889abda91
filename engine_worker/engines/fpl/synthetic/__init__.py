"""A made-up season in the exact shapes of the official API, for everyone who has no saved responses.

Deterministic: the seed decides clubs, players, calendar, what happened in the gameweeks played, and six managers
(`team_id` 1–6). Standard library only, about half a second, built on the first question and kept.
"""

import hashlib
import json
from functools import cached_property
from random import Random
from typing import Any

from engine_worker.engines.fpl.rules import Ruleset, ruleset
from engine_worker.engines.fpl.sources import Answer, NotThere
from engine_worker.engines.fpl.synthetic.managers import MANAGERS, Desk, Manager
from engine_worker.engines.fpl.synthetic.matches import Played, play_season
from engine_worker.engines.fpl.synthetic.shapes import bootstrap_body, fixtures_body, game_settings
from engine_worker.engines.fpl.synthetic.world import PLAYED, Match, make_calendar, make_clubs, make_players

_PARTS = ("world", "calendar", "matches", "managers", "shapes")


class SyntheticSource:
    """A season from a seed. Answers `bootstrap-static`, `fixtures`, `element-summary/N` and the `entry/N/…` pages."""

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed

    @property
    def taken_at(self) -> str:
        """Two days before the next deadline of the made-up season."""
        return "2026-11-25T10:00:00+00:00"

    def answer(self, path: str) -> Answer:
        """See `Source.answer`."""
        if path not in self._season.answers:
            self._season.answers[path] = _answer(self._season.body(path))
        return self._season.answers[path]

    @cached_property
    def _season(self) -> "_Season":
        return _Season(self._seed)


class _Season:
    def __init__(self, seed: int) -> None:
        self.answers: dict[str, Answer] = {}
        # One stream of chance each, so that a change in one part does not reshuffle the others.
        self._rng = {part: Random(f"{part} {seed}") for part in _PARTS}  # noqa: S311 - a season, not a secret
        self.rules: Ruleset = ruleset(game_settings())
        self.clubs = make_clubs(self._rng["world"])
        self.players = make_players(self._rng["world"], self.clubs)
        self.matches: list[Match] = make_calendar(self._rng["calendar"])
        self.played: Played = play_season(self._rng["matches"], self.rules, self.clubs, self.players, self.matches)
        desk = Desk(self._rng["managers"], self.rules, self.players, self.played)
        self.managers: dict[int, Manager] = {entry: desk.season(entry) for entry in MANAGERS}

    def body(self, path: str) -> Any:
        match path.split("/"):
            case ["bootstrap-static"]:
                return bootstrap_body(self._rng["shapes"], self.clubs, self.players, self.matches, self.played)
            case ["fixtures"]:
                return fixtures_body(self.clubs, self.matches, self.played)
            case ["element-summary", element] if element.isdigit() and int(element) <= len(self.players):
                return {"fixtures": [], "history": self.played.rows[int(element)], "history_past": []}
            case ["entry", entry, *rest] if entry.isdigit() and int(entry) in self.managers:
                return self._entry(path, self.managers[int(entry)], rest)
        raise NotThere(path)

    def _entry(self, path: str, manager: Manager, rest: list[str]) -> Any:
        match rest:
            case []:
                last = manager.weeks[-1]
                return {
                    "id": manager.id, "name": manager.name, "started_event": 1, "current_event": PLAYED,
                    "summary_overall_points": manager.points, "summary_overall_rank": None,
                    "last_deadline_bank": last["bank"], "last_deadline_value": last["value"],
                }  # fmt: skip
            case ["history"]:
                return {"current": manager.weeks, "past": [], "chips": manager.chips}
            case ["transfers"]:
                return manager.moves[::-1]
            case ["event", gameweek, "picks"] if gameweek.isdigit() and int(gameweek) in manager.picks:
                return manager.picks[int(gameweek)]
        raise NotThere(path)


def _answer(body: Any) -> Answer:
    text = json.dumps(body, separators=(",", ":")).encode()
    return Answer(body, hashlib.sha256(text).hexdigest())

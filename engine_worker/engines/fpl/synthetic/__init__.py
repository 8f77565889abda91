"""A made-up season in the exact shapes of the official API, for everyone who has no saved responses.

Deterministic: the seed decides clubs, players, calendar, what happened in the gameweeks played, and seven managers
(`team_id` 1–7). Built on the first question, in about half a second, and kept. It knows what was to be expected: see
`truth`.
"""

import hashlib
import json
from functools import cache, cached_property
from random import Random
from typing import TYPE_CHECKING, Any

from engine_worker.engines.fpl.seasons import LAST_GAMEWEEK, ruleset
from engine_worker.engines.fpl.source import Answer, NotThere
from engine_worker.engines.fpl.synthetic.state import State

if TYPE_CHECKING:
    from engine_worker.engines.fpl.synthetic.managers import Manager
    from engine_worker.engines.fpl.synthetic.truth import Truth

__all__ = ["State", "SyntheticSource"]


class SyntheticSource:
    """A season from a seed at a moment of it. Answers `bootstrap-static`, `fixtures`, `event/N/live`, `element-summary/N`, `entry/N/…`."""

    def __init__(self, seed: int = 1, state: State | None = None) -> None:
        self._seed, self._state = seed, state or State()
        self._answers: dict[str, Answer] = {}

    def answer(self, path: str) -> Answer:
        """See `Source.answer`; true two days before the next deadline of the made-up season."""
        if path not in self._answers:
            body = self._season.body(path)
            text = json.dumps(body, separators=(",", ":")).encode()
            self._answers[path] = Answer(body, hashlib.sha256(text).hexdigest(), self._season.taken_at)
        return self._answers[path]

    at_hand = answer

    def truth(self, horizon: int, draws: int = 4000) -> "Truth":
        """Expected points of every player in the next `horizon` gameweeks, known before the next deadline."""
        from engine_worker.engines.fpl.synthetic.truth import true_expectation

        coming = range(self._state.played + 1, min(self._state.played + horizon, LAST_GAMEWEEK) + 1)
        return true_expectation(self._season.stage, self._seed, coming, draws)

    def manager(self, entry: int) -> "Manager":
        """What is really so of a made-up manager, which the API does not show."""
        return self._season.manager(entry)

    @cached_property
    def _season(self) -> "_Season":
        return _Season(self._seed, self._state.played)


class _Season:
    def __init__(self, seed: int, played: int) -> None:
        # numpy, and what needs it, only for who asks for a season.
        import numpy as np

        from engine_worker.engines.fpl.synthetic import managers, shapes, world
        from engine_worker.engines.fpl.synthetic.season import Stage, play_season

        # One stream of chance each, so that a change in one part does not reshuffle the others.
        chance = {part: Random(f"{part} {seed}") for part in ("world", "calendar", "prices", "shapes")}  # noqa: S311 - a season, not a secret
        rules = ruleset(shapes.game_settings(played))
        clubs = world.make_clubs(chance["world"])
        players = world.make_players(chance["world"], clubs)
        if played == 0:
            _remember_last_season(seed, rules, clubs, players)
        self.stage = Stage(rules, clubs, players, world.make_calendar(chance["calendar"], played))
        self.played = play_season(np.random.default_rng([seed, 1]), chance["prices"], self.stage, played)
        self._gameweeks = played
        self._known = frozenset(managers.MANAGERS)

        # Each has a stream of chance of his own, so he is played when somebody asks for him, in whatever thread.
        @cache
        def manager(entry: int) -> "Manager":
            chance = Random(f"manager {entry} {seed}")  # noqa: S311 - as above
            return managers.Desk(chance, rules, players, self.played).season(entry, played)

        self.manager = manager
        self.shapes = shapes.Shapes(chance["shapes"], clubs, self.stage, self.played, played)
        self.taken_at = shapes.before_deadline(played + 1)

    def body(self, path: str) -> Any:
        match path.split("/"):
            case ["bootstrap-static"]:
                return self.shapes.bootstrap()
            case ["fixtures"]:
                return self.shapes.fixtures()
            case ["element-summary", element] if element.isdigit() and int(element) <= len(self.stage.players):
                return self.shapes.element_summary(int(element))
            case ["event", gameweek, "live"] if gameweek.isdigit() and 1 <= int(gameweek) <= self._gameweeks:
                return self.shapes.live(int(gameweek))
            case ["entry", entry, *rest] if entry.isdigit() and int(entry) in self._known:
                return self._entry(path, self.manager(int(entry)), rest)
        raise NotThere(path)

    def _entry(self, path: str, manager: "Manager", rest: list[str]) -> Any:
        match rest:
            case []:
                last = manager.weeks[-1] if manager.weeks else {"bank": None, "value": None, "event": None}
                return {
                    "id": manager.id, "name": manager.name, "current_event": last["event"],
                    "started_event": manager.weeks[0]["event"] if manager.weeks else 1,
                    "summary_overall_points": manager.points if manager.weeks else None, "summary_overall_rank": None,
                    "last_deadline_bank": last["bank"], "last_deadline_value": last["value"],
                }  # fmt: skip
            case ["history"]:
                return {"current": manager.weeks, "past": [], "chips": manager.chips}
            case ["transfers"]:
                return manager.moves[::-1]
            case ["event", gameweek, "picks"] if gameweek.isdigit() and int(gameweek) in manager.picks:
                return manager.picks[int(gameweek)]
        raise NotThere(path)


def _remember_last_season(seed: int, rules: Any, clubs: Any, players: Any) -> None:
    """Before a season begins a bootstrap shows the totals of the last one, zero for who was not in the league."""
    import numpy as np

    from engine_worker.engines.fpl.synthetic import world
    from engine_worker.engines.fpl.synthetic.matches import COUNTED
    from engine_worker.engines.fpl.synthetic.season import Stage, play_season

    chance = Random(f"last season {seed}")  # noqa: S311 - as above
    was = [world.copied(player) for player in players]
    stage = Stage(rules, clubs, was, world.make_calendar(chance, LAST_GAMEWEEK))
    played = play_season(np.random.default_rng([seed, 2]), chance, stage, LAST_GAMEWEEK)
    promoted = set(chance.sample([club.id for club in clubs], 3))
    for player in players:
        if player.club not in promoted and chance.random() > 0.15:
            player.last_season = {name: sum(row[name] for row in played.rows[player.id]) for name in COUNTED}

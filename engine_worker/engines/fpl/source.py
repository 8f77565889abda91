"""Where the engine reads the game from: the port `Source`, what it raises, and what a page must look like.

A source answers paths of the official API (`bootstrap-static`, `fixtures`, `entry/7/history`, …) with their bodies.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

# Keys without which a page is not what its path promises. Only what is read; unknown keys are welcome.
_KEYS = {
    "bootstrap-static": ("events", "game_settings", "teams", "elements", "element_types"),
    "history": ("current", "chips"),
    "picks": ("picks", "entry_history"),
    "element-summary": ("history",),
}
_ITEM_KEYS = {
    "events": ("id", "deadline_time", "is_next"),
    "elements": (
        "id",
        "code",
        "web_name",
        "team",
        "element_type",
        "now_cost",
        "cost_change_start",
        "status",
        "minutes",
    ),
    "fixtures": ("id", "event", "team_h", "team_a", "team_h_score", "finished", "kickoff_time", "stats"),
    "transfers": ("element_in", "element_in_cost", "element_out", "element_out_cost", "event", "time"),
    "picks": ("element", "position", "multiplier"),
    "live": ("id", "explain"),
    "explain": ("fixture", "stats"),
    "stats": ("identifier", "value"),
}
# Of a player: whole numbers and the least each may be, and counts that may be null or missing.
_WHOLE = {"id": 1, "team": 1, "element_type": 1, "now_cost": 1, "minutes": 0}
_COUNTS = ("starts", "transfers_in_event", "transfers_out_event")


class Answer(NamedTuple):
    """One body of the API, as JSON values, the SHA-256 of the bytes it came from, and when it was true (UTC, ISO 8601).

    `stale` says why an older body stands in for one that could not be fetched.
    """

    body: Any
    sha256: str
    taken_at: str
    stale: str | None = None


class NotThere(LookupError):
    """The source has no such path: an unknown entry, or picks of a gameweek whose deadline has not passed."""


class NotAtHand(LookupError):
    """Nothing fresh is saved: only a job may ask the network."""


class BrokenSource(Exception):
    """The source cannot be read now: the game is being updated, or a file is truncated or foreign.

    `retry_after_s` is what the source asked for, if it did.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Source(Protocol):
    """A place the official API's answers come from."""

    def answer(self, path: str) -> Answer:
        """The body at an API path without slashes at its ends. May take seconds. Raises `NotThere`, `BrokenSource`."""
        ...

    def at_hand(self, path: str) -> Answer:
        """As `answer`, but at once and without the network. Raises `NotAtHand` too."""
        ...


class Reading:
    """Reads one source for one decision and remembers what it used, so that the decision can name its ground."""

    def __init__(self, source: Source, *, at_hand: bool = False) -> None:
        self._ask = source.at_hand if at_hand else source.answer
        self._used: dict[str, Answer] = {}

    def body(self, path: str) -> Any:
        """The body at `path`, the same one whenever it is asked for. Raises as `Source.answer` or `at_hand`."""
        if path not in self._used:
            self._used[path] = self._ask(path)
        return self._used[path].body

    @property
    def used(self) -> Mapping[str, Answer]:
        """The pages read so far by path."""
        return self._used

    @property
    def taken_at(self) -> str:
        """When the oldest page used was true; the empty string before anything was read.

        What happened in a past gameweek stays true: its pages do not count.
        """
        return min((page.taken_at for path, page in self._used.items() if not path.startswith("event/")), default="")

    @property
    def stale(self) -> str | None:
        """Why an older page had to do, if one did."""
        return next((answer.stale for answer in self._used.values() if answer.stale), None)

    def sha256(self) -> str:
        """One digest over the paths read so far and their contents; the order of reading does not matter."""
        lines = "".join(f"{path} {answer.sha256}\n" for path, answer in sorted(self._used.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def parsed(path: str, content: bytes, name: str) -> Any:
    """The JSON of a page. Raises `BrokenSource`, calling the page `name`, for what it cannot be."""
    start = content.lstrip()[:1]
    if start == b"<":
        raise BrokenSource(f"{name}: a web page, not JSON (the site shows one while the game is being updated)")
    try:
        body = json.loads(content)
    except ValueError as failure:
        what = "truncated" if start in (b"{", b"[") else "not JSON"
        raise BrokenSource(f"{name}: {what}, {len(content)} bytes ({failure})") from failure
    if problem := _problem(path, body):
        raise BrokenSource(f"{name}: {problem}")
    return body


def digest(content: bytes) -> str:
    """SHA-256 of a page, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _problem(path: str, body: Any) -> str | None:
    """Why a body cannot be what its path promises; only what a half-written or foreign page gets wrong."""
    kind = "element-summary" if path.startswith("element-summary/") else path.rsplit("/", 1)[-1]
    if kind in ("fixtures", "transfers"):
        if not isinstance(body, list) or (kind == "fixtures" and not body):
            return f"is no list of {kind}"
        return _item_problem(kind, body)
    if not isinstance(body, dict):
        return "is no object"
    if kind == "live":
        return _live_problem(body.get("elements"))
    # A bootstrap without players or gameweeks is the site half-way through an update; other lists may be empty.
    missing = [key for key in _KEYS.get(kind, ()) if key not in body or (kind == "bootstrap-static" and not body[key])]
    if missing:
        return f"lacks {', '.join(missing)}"
    # A player's page has his coming matches as `fixtures`, in another shape and read by nobody.
    listed = [key for key in _ITEM_KEYS if key in body and kind != "element-summary"]
    found = next(filter(None, (_item_problem(key, body[key]) for key in listed)), None)
    return found or (_player_problem(body["elements"]) if kind == "bootstrap-static" else None)


def _item_problem(kind: str, items: Any) -> str | None:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return f"{kind}: not a list of objects"
    missing = sorted({key for item in items for key in _ITEM_KEYS[kind] if key not in item})
    return f"{kind}: some lack {', '.join(missing)}" if missing else None


def _player_problem(players: Sequence[Mapping[str, Any]]) -> str | None:
    """Numbers that no player has: models and rules would make nonsense of them, or fail."""
    for name, least in _WHOLE.items():
        if not all(_whole(player[name], least) for player in players):
            return f"elements: not every {name} is a whole number of {least} or more"
    for name in _COUNTS:
        if not all(player.get(name) is None or _whole(player[name], 0) for player in players):
            return f"elements: not every {name} is a count"
    twice = [number for number, times in Counter(player["id"] for player in players).items() if times > 1]
    return f"elements: {twice[0]} is there twice" if twice else None


def _live_problem(players: Any) -> str | None:
    """Minutes are read from what is counted in each match."""
    if problem := _item_problem("live", players):
        return problem
    for player in players:
        if problem := _item_problem("explain", player["explain"]):
            return problem
        for match in player["explain"]:
            if problem := _item_problem("stats", match["stats"]):
                return problem
            if not all(_whole(stat["value"], 0) for stat in match["stats"] if stat["identifier"] == "minutes"):
                return "stats: minutes are no count"
    return None


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least

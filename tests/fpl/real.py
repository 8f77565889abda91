"""Reads the real seasons that PHASELINE_FPL_DATA names, in the shapes of the API."""

import csv
import gzip
import io
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine_worker.engines.fpl.seasons import Ruleset, ruleset
from engine_worker.engines.fpl.state import EntryPages

DATA = Path(os.environ.get("PHASELINE_FPL_DATA", "."))
_POSITIONS = {"GK": 1, "GKP": 1, "DEF": 2, "MID": 3, "FWD": 4}
_WORDS = {"name", "position", "team", "kickoff_time", "was_home"}
Row = dict[str, Any]


def table(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a compressed table."""
    yield from csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode()))


def seasons() -> list[str]:
    """Seasons whose matches and one manager are there."""
    found = sorted(folder.name for folder in (DATA / "seasons").glob("20*"))
    return [name for name in found if _file("FPL", name).is_file()]


@dataclass(frozen=True)
class Season:
    """One season as it ended, and one manager's way through it."""

    name: str
    rules: Ruleset
    elements: dict[int, Row]
    rows: list[Row]  # one for each player and match, with the API's names; `round` is the gameweek
    picks: list[Row]  # bodies of `entry/N/event/GW/picks`
    pages: EntryPages

    def by_gameweek(self, column: str) -> dict[tuple[int, int], int]:
        """(element, gameweek) → the sum of a column over his matches."""
        total: dict[tuple[int, int], int] = defaultdict(int)
        for row in self.rows:
            total[row["element"], row["round"]] += row[column]
        return total

    def prices(self) -> dict[int, dict[int, int]]:
        """Element → gameweek → price at its deadline, for gameweeks he had a match in."""
        found: dict[int, dict[int, int]] = defaultdict(dict)
        for row in self.rows:
            found[row["element"]].setdefault(row["round"], row["value"])
        return found


@cache
def season(name: str) -> Season:
    """Reads one season; about two seconds."""
    bootstrap, picks = _json("FPL", name), _json("airsenal_gw", name)
    rows = [_row(row, gameweek) for gameweek in range(1, 39) for row in _gameweek(name, gameweek)]
    pages = EntryPages(_json("airsenal_history", name), _json("airsenal_transfer", name), picks[-1])
    elements = {element["id"]: element for element in bootstrap["elements"]}
    return Season(name, ruleset(bootstrap), elements, rows, picks, pages)


def _gameweek(name: str, gameweek: int) -> Iterator[dict[str, str]]:
    return table(DATA / "seasons" / name / "gws" / f"gw{gameweek}.csv.gz")


def _row(row: dict[str, str], gameweek: int) -> Row:
    """Numbers as numbers; seasons before 2025/26 count no defensive contributions."""
    whole = {key: int(value) for key, value in row.items() if key not in _WORDS and value.lstrip("-").isdigit()}
    return {"defensive_contribution": 0, **whole, "name": row["name"], "position": _POSITIONS[row["position"]],
            "round": gameweek}  # fmt: skip


def _json(kind: str, name: str) -> Any:
    return json.loads(gzip.decompress(_file(kind, name).read_bytes()))


def _file(kind: str, name: str) -> Path:
    return DATA / "seasons" / "json" / f"{kind}_{name[2:4]}{name[5:7]}.json.gz"

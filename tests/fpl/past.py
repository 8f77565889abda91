"""Made-up seasons in the layout of past ones, see `backtest/history.py`."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

from engine_worker.engines.fpl.synthetic import State, SyntheticSource

GAMEWEEKS = (5, 6, 7)
NAME, BEFORE = "2026-27", "2025-26"


def zipped(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text.encode()))


def as_table(rows: list[dict[str, Any]]) -> str:
    """As collectors write it: text of everything, None for null."""
    columns = [key for key, value in rows[0].items() if not isinstance(value, list)]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({key: "None" if row[key] is None else row[key] for key in columns} for row in rows)
    return out.getvalue()


def season_into(root: Path, name: str, seed: int) -> None:
    """A made-up season in the layout of `history.py`, with snapshots before three deadlines."""
    end, short = SyntheticSource(seed, State.named("over")), name[2:4] + name[5:]
    bootstrap = end.answer("bootstrap-static").body
    zipped(root / f"seasons/json/FPL_{short}.json.gz", json.dumps(bootstrap))
    zipped(root / f"seasons/json/fixture_data_{short}.json.gz", json.dumps(end.answer("fixtures").body))
    for gameweek in GAMEWEEKS:
        before = SyntheticSource(seed, State.named(str(gameweek))).answer("bootstrap-static")
        stamp = before.taken_at[:19].replace("-", "").replace(":", "") + "Z"
        zipped(root / f"seasons/{name}/snapshots/{stamp}_abc.csv.gz", as_table(before.body["elements"]))
    played: dict[int, list[dict[str, Any]]] = {}
    for element in bootstrap["elements"]:
        for row in end.answer(f"element-summary/{element['id']}").body["history"]:
            played.setdefault(row["round"], []).append(row)
    for gameweek, rows in played.items():
        zipped(root / f"seasons/{name}/gws/gw{gameweek}.csv.gz", as_table(rows))

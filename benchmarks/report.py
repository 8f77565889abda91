"""What a run leaves: the table a person reads, the JSON a program reads, both growing row by row.

A row stands for itself: its floors and peers were measured with it, in turns. So rows may be measured one by one and
their figures kept side by side.
"""

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import Results

PACKAGES = ("aio-pika", "aiohttp", "asyncpg", "pydantic", "SQLAlchemy")
HEAD = ("who", "what", "measured", "against", "should reach", "what it is; what is persisted")


def table(results: Results) -> str:
    """One row's figures as a Markdown table, readable as it is."""
    lines = [HEAD]
    for figure in results.figures:
        reach = ", ".join(bound.shown() for bound in figure.reach)
        met = {True: " ✓", False: " ✗", None: ""}[results.met(figure)]
        measured = figure.shown() if figure.failed else f"{figure.shown()} {figure.unit}"
        lines.append((figure.who, figure.name, measured, results.ratios(figure), reach + met, figure.note))
    return f"### {results.row}: {results.title}\n\n{aligned(lines)}"


def aligned(lines: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table whose columns line up as far as the last one."""
    rows = [tuple(cell.replace("|", "\\|") for cell in line) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    made = [
        "| " + " | ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) + " |"
        for row in rows
    ]
    made.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|---|")
    return "\n".join(made)


def machine(versions: Mapping[str, str]) -> dict[str, Any]:
    """What the figures are for; `versions` are those of the servers."""
    return {
        "measured": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": platform.system() + " " + platform.release().partition("-")[0],
        "python": platform.python_version(),
        **versions,
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


class Report:
    """The folder a run writes to: `figures.json` with every row ever measured here, `table.md`, plots."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._json = folder / "figures.json"
        self._rows: dict[str, dict[str, Any]] = {}
        if self._json.exists():
            self._rows = json.loads(self._json.read_text(encoding="utf-8"))["rows"]

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Everything kept, by row."""
        return self._rows

    def put(self, results: Results, about: Mapping[str, Any], *, quick: bool) -> str:
        """Keeps a row in place of an earlier one of its name; returns its table."""
        text = table(results)
        self._rows[results.row] = results.as_json() | {"table": text, "quick": quick, "machine": dict(about)}
        self.folder.mkdir(parents=True, exist_ok=True)
        _replace(self._json, json.dumps({"rows": self._rows}, indent=1, ensure_ascii=False) + "\n")
        return text

    def has(self, row: str, *, quick: bool) -> bool:
        """Whether a row is kept, as thoroughly measured as now."""
        return row in self._rows and (quick or not self._rows[row]["quick"])

    def draw(self, name: str, svg: str) -> None:
        """Keeps a plot."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _replace(self.folder / name, svg)

    def page(self, order: Iterable[str]) -> str:
        """The tables of all rows, in this order, each with the machine it was measured on when they differ."""
        rows = [self._rows[name] for name in order if name in self._rows]
        machines = [row["machine"] for row in rows]
        shared = {key: value for key, value in (machines[0] if machines else {}).items() if _same(machines, key)}
        parts = [f"Measured on: {said(shared)}."]
        for row in rows:
            own = {key: value for key, value in row["machine"].items() if key not in shared}
            notes = [said(own)] if own else []
            notes += ["a quick run: fewer repeats, smaller sizes"] if row["quick"] else []
            parts.append(row["table"] + (f"\n\n({'; '.join(notes)})" if notes else ""))
        parts += [f"![{svg.stem}](figures/{svg.name})" for svg in sorted(self.folder.glob("*.svg"))]
        return "\n\n".join(parts) + "\n"


def said(about: Mapping[str, Any]) -> str:
    """A machine in words."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items())


def _same(machines: Iterable[Mapping[str, Any]], key: str) -> bool:
    return len({str(one.get(key)) for one in machines}) == 1


def _replace(path: Path, text: str) -> None:
    """An interrupted run leaves the old file or the new one."""
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

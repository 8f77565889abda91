"""What a run of the tests broke, checked and measured: gathered from every test process, printed at its end.

`PHASELINE_TEST_FIGURES` names the file (one JSON object a line) for whoever wants more than the summary.
"""

import json
import os
import statistics
from pathlib import Path
from typing import Any

VARIABLE = "PHASELINE_TEST_FIGURES"
CHECKED = "checked"  # by `phaseline verify`: jobs, events, recordings


def note(figures: dict[str, Any]) -> None:
    """Adds figures; `what` says of what, `text` alone is printed as it is."""
    if path := os.environ.get(VARIABLE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")


def summary(path: Path) -> list[str]:
    """Lines for the end of the run; none when nothing was noted."""
    noted = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for figures in noted for line in figures.get("text", "").splitlines()]
    if checked := [figures for figures in noted if figures.get("what") == CHECKED]:
        counts = ", ".join(f"{sum(run[name] for run in checked)} {name}" for name in ("jobs", "events", "recordings"))
        lines.append(f"checked after faults and other runs: {counts}, in {len(checked)} installations")
    for what in sorted({figures["what"] for figures in noted if "seconds" in figures}):
        took = [figures["seconds"] for figures in noted if figures.get("what") == what]
        lines.append(f"{what}: {len(took)} times, median {statistics.median(took):.2f} s, longest {max(took):.2f} s")
    return lines

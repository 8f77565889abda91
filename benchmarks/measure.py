"""Figures: a name, numbers, a unit, and what the number is and is not."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured line. `values` are repeats (or latencies); `floor` names the figure it is held against."""

    name: str
    unit: str
    values: Sequence[float]
    note: str = ""
    floor: str | None = None
    latency: bool = False  # shown as p50 / p99 instead of median and spread

    def shown(self) -> str:
        """The number as a person reads it."""
        if self.latency:
            return f"p50 {percentile(self.values, 50):.2f}  p99 {percentile(self.values, 99):.2f}"
        low, high = min(self.values), max(self.values)
        return f"{median(self.values):,.0f}  ({low:,.0f}–{high:,.0f})"

    def as_json(self) -> dict[str, object]:
        """The number as a program reads it."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": median(self.values),
            "min": min(self.values),
            "max": max(self.values),
            "p99": percentile(self.values, 99),
            "count": len(self.values),
            "floor": self.floor,
            "note": self.note,
        }


@dataclass(slots=True)
class Results:
    """Everything a run measured, in order."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        """Keeps a figure, and says it at once: a long run shows that it goes on."""
        print(f"{figure.name}: {figure.shown()} {figure.unit}", file=sys.stderr, flush=True)
        self.figures.append(figure)

    def of(self, name: str) -> Figure | None:
        """A figure by its name."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def ratio(self, figure: Figure) -> str:
        """A figure against its floor: how much of the floor's rate, or how many times its time."""
        floor = self.of(figure.floor) if figure.floor else None
        if floor is None:
            return ""
        share = median(figure.values) / median(floor.values)
        return f"{share:.1f}x the time of {floor.name}" if figure.latency else f"{share:.0%} of {floor.name}"


def median(values: Sequence[float]) -> float:
    """The middle of sorted values."""
    return percentile(values, 50)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the sorted values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1 if percent else 0)]

"""Figures: what was measured, how often, and what it is held against.

A figure keeps every repeat. One number a repeat makes a rate (its median and range count); many numbers a repeat are
latencies (their percentiles over all repeats count, and the range of the repeats' own medians).
"""

import math
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

OURS = "Phaseline"
FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure should reach: a percentile, or its ratio to another figure of its row."""

    of: Literal["p50", "p99", "ratio"]
    least: float | None = None
    most: float | None = None
    to: str = ""  # whose figure, for a ratio

    def shown(self) -> str:
        """As a person reads it: `p99 ≤ 15`, `≥ 5x Celery`."""
        sign, value = ("≥", self.least) if self.least is not None else ("≤", self.most)
        return f"{sign} {value:g}x {self.to}" if self.of == "ratio" else f"{self.of} {sign} {value:,g}"

    def met(self, value: float) -> bool:
        """Whether this value is inside."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured line of a row. `repeats` is empty when it could not be measured: `failed` says why."""

    name: str
    unit: str
    repeats: Sequence[Sequence[float]]
    who: str = OURS
    note: str = ""  # what it is; of a peer: what it persists, and what it does not
    against: tuple[str, ...] = ()  # the figures it is held against: by name, or by whose they are
    reach: tuple[Bound, ...] = ()
    failed: str = ""

    @property
    def values(self) -> list[float]:
        """Every number of every repeat."""
        return [value for repeat in self.repeats for value in repeat]

    @property
    def latency(self) -> bool:
        """True for many numbers a repeat: shown as percentiles."""
        return any(len(repeat) > 1 for repeat in self.repeats)

    def measure(self, of: str) -> float:
        """A percentile of all values: `p50` or `p99`."""
        return percentile(self.values, float(of[1:]))

    def shown(self) -> str:
        """The number as a person reads it."""
        if self.failed:
            return f"not measured: {self.failed}"
        values = self.values
        if self.latency:
            medians = [median(repeat) for repeat in self.repeats]
            spread = f" (p50 {number(min(medians))}–{number(max(medians))})" if len(medians) > 1 else ""
            return f"p50 {number(median(values))}, p99 {number(percentile(values, 99))}{spread}"
        spread = f" ({number(min(values))}–{number(max(values))})" if len(values) > 1 else ""
        return number(median(values)) + spread

    def as_json(self) -> dict[str, Any]:
        """The number as a program reads it."""
        said: dict[str, Any] = {"name": self.name, "who": self.who, "unit": self.unit, "note": self.note}
        if self.failed:
            return said | {"failed": self.failed}
        values = self.values
        return said | {
            "median": median(values),
            "p99": percentile(values, 99),
            "min": min(values),
            "max": max(values),
            "count": len(values),
            "medians_of_repeats": [median(repeat) for repeat in self.repeats],
        }


@dataclass(slots=True)
class Results:
    """The figures of one row of the table, in order."""

    row: str
    title: str
    figures: list[Figure] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        """Keeps a figure, and says it at once: a long run shows that it goes on."""
        print(f"  {figure.who}: {figure.name}: {figure.shown()} {figure.unit}", file=sys.stderr, flush=True)
        self.figures.append(figure)

    def of(self, name: str) -> Figure | None:
        """The first figure that was measured, by its name or by whose it is."""
        return next((one for one in self.figures if name in {one.name, one.who} and not one.failed), None)

    def ratio(self, figure: Figure, name: str) -> float | None:
        """The median of a figure over the median of another one of this row."""
        other = self.of(name)
        return None if other is None or figure.failed else median(figure.values) / median(other.values)

    def ratios(self, figure: Figure) -> str:
        """What a figure is against each of those it is held against."""
        known = [(name, self.ratio(figure, name)) for name in figure.against]
        return ", ".join(f"{ratio:.2f}x {name}" for name, ratio in known if ratio is not None)

    def met(self, figure: Figure) -> bool | None:
        """Whether a figure reaches what it should; None where nothing is asked, or where what is known suffices but a
        peer it asks for was not measured."""
        if not figure.reach or figure.failed:
            return None
        values = [
            (bound, self.ratio(figure, bound.to) if bound.of == "ratio" else figure.measure(bound.of))
            for bound in figure.reach
        ]
        if not all(bound.met(value) for bound, value in values if value is not None):
            return False
        return None if any(value is None for _, value in values) else True

    def as_json(self) -> dict[str, Any]:
        """The row as a program reads it."""
        return {
            "title": self.title,
            "figures": [
                figure.as_json()
                | {"ratios": {name: self.ratio(figure, name) for name in figure.against}}
                | {"reach": [bound.shown() for bound in figure.reach], "met": self.met(figure)}
                for figure in self.figures
            ],
        }


async def in_turns(
    repeats: int, measures: Mapping[str, Callable[[], Awaitable[Sequence[float]]]]
) -> dict[str, list[Sequence[float]]]:
    """Runs each measure once, then each again: what disturbs the machine for a while disturbs all alike."""
    found: dict[str, list[Sequence[float]]] = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            found[name].append(await measure())
    return found


def median(values: Sequence[float]) -> float:
    """The middle of the sorted values, the lower one of two."""
    return percentile(values, 50)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed. Raises `ValueError` without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]


def number(value: float) -> str:
    """Three figures that count, thousands apart: 0.034, 2.41, 38.2, 1,234."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(2 - math.floor(math.log10(abs(value))), 0)}f}"

"""Cost curves as SVG: how a cost changes while what it works on grows a thousandfold. PURE.

Each line is drawn relative to its own middle, over a logarithmic size; the band is what counts as flat.
"""

from collections.abc import Mapping, Sequence
from html import escape
from math import log10

from benchmarks.measure import number

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 60, 250, 46, 50
FLAT = 0.2
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")

Curve = Sequence[tuple[float, float]]  # (size, cost), sizes rising


def curves(title: str, sizes: str, lines: Mapping[str, tuple[str, Curve]]) -> str:
    """An SVG of lines `name -> (unit, curve)`. `sizes` names the horizontal axis. Raises `ValueError` without a line."""
    if not lines:
        raise ValueError("nothing to draw")
    xs = sorted({size for _, curve in lines.values() for size, _ in curve})
    top = max(1 + 2 * FLAT, *(max(relative(curve)) for _, curve in lines.values())) * 1.05
    low, high = log10(xs[0]), log10(xs[-1]) if xs[-1] > xs[0] else log10(xs[0]) + 1

    def x(size: float) -> float:
        return LEFT + (log10(size) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(ratio: float) -> float:
        return HEIGHT - BOTTOM - ratio / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
        _band(y(1 + FLAT), y(1 - FLAT)),
        _line([(LEFT, y(0)), (WIDTH - RIGHT, y(0))], "#333333"),
        _line([(LEFT, y(1)), (WIDTH - RIGHT, y(1))], "#bbbbbb"),
        f'<text font-size="12" x="{LEFT - 8}" y="{y(1) + 4:.1f}" text-anchor="end">1x</text>',
        f'<text font-size="12" x="{LEFT - 8}" y="{y(0) + 4:.1f}" text-anchor="end">0</text>',
        f'<text font-size="12" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(sizes)}</text>',
    ]
    parts += [
        f'<text font-size="12" x="{x(size):.1f}" y="{y(0) + 18:.1f}" text-anchor="middle">{size:,.0f}</text>'
        for size in xs
    ]
    for index, (name, (unit, curve)) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = [(x(size), y(ratio)) for (size, _), ratio in zip(curve, relative(curve), strict=True)]
        parts.append(_line(points, colour, 2))
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in points]
        costs = [cost for _, cost in curve]
        said = f"{name}: {number(min(costs))}–{number(max(costs))} {unit}"
        parts.append(
            f'<text font-size="12" x="{WIDTH - RIGHT + 14}" y="{TOP + 18 + 20 * index}" fill="{colour}">{escape(said)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def relative(curve: Curve) -> list[float]:
    """Each cost over the middle between the lowest and the highest."""
    costs = [cost for _, cost in curve]
    middle = (min(costs) + max(costs)) / 2
    return [cost / middle for cost in costs]


def flatness(curve: Curve) -> float:
    """Within plus or minus how much of that middle all costs lie: 0.2 is 20 %."""
    return max(relative(curve)) - 1


def _band(top: float, bottom: float) -> str:
    size = f'width="{WIDTH - LEFT - RIGHT}" height="{bottom - top:.1f}"'
    return f'<rect x="{LEFT}" y="{top:.1f}" {size} fill="#eeeeee"/>'


def _line(points: Sequence[tuple[float, float]], colour: str, width: int = 1) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'

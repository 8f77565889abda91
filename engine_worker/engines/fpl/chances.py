"""The chance of something by a fitted model: the mean of what a logistic model and boosted trees say, as log-odds. PURE.

The two err differently: the one knows no steps and no interplay of features that nobody thought of, the others see
little where examples are few. Their mean is better than either.
"""

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

import numpy as np

from engine_worker.engines.fpl.fitted import Chance, Node

# Log-odds this far below 0 are as good as nothing; further ones, of a page with absurd numbers, have no exponential.
_FAR = 700.0


def chances(model: Chance, rows: Sequence[Mapping[str, float]]) -> list[float]:
    """One for each row of features; what a row lacks is 0."""
    # Sums in a fixed order: a product of matrices would differ in its last digits from one processor to another.
    columns = {name: np.array([row.get(name, 0.0) for row in rows]) for name in model.names}
    linear = np.full(len(rows), model.intercept)
    for name, weight in model.weights.items():
        linear += weight * columns[name]
    voted = np.full(len(rows), model.base)
    table = [columns[name] for name in model.names]
    everybody = np.arange(len(rows))
    for tree in model.trees:
        _vote(tree, table, everybody, voted)
    return [1 / (1 + exp(min(-odds, _FAR))) for odds in ((linear + voted) / 2).tolist()]


def _vote(node: Node, table: Sequence[Any], rows: Any, voted: Any) -> None:
    """Adds to `voted` what the leaf says that each of `rows` comes to."""
    if isinstance(node, float):
        voted[rows] += node
    elif len(rows):
        feature, least, low, high = node
        up = table[feature][rows] > least
        _vote(low, table, rows[~up], voted)
        _vote(high, table, rows[up], voted)

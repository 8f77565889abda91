"""Which faults come when: drawn from a seed alone, so that a seed names a plan for ever."""

import random
from dataclasses import dataclass

GAP_S = 2.2  # between faults, on average; they last longer than that, so several overlap
# kind -> how often, and how long it lasts in seconds (a process that was ended stays away that long)
KINDS: dict[str, tuple[float, tuple[float, float]]] = {
    "kill worker": (6, (0.0, 3.0)),
    "kill gateway": (4, (0.0, 2.0)),
    "kill engine child": (5, (0.0, 0.0)),
    "freeze worker": (4, (1.0, 8.0)),
    "freeze gateway": (3, (1.0, 6.0)),
    "freeze engine child": (2, (1.0, 4.0)),
    "stop worker in order": (3, (0.0, 2.0)),
    "stop gateway in order": (2, (0.0, 2.0)),
    "stop RabbitMQ": (2, (0.5, 5.0)),
    "kill RabbitMQ": (1, (0.0, 2.0)),
    "freeze RabbitMQ": (2, (1.0, 9.0)),
    "memory alarm of RabbitMQ": (2, (1.0, 6.0)),
    "delete a queue": (4, (0.0, 0.0)),
    "purge the tickets": (3, (0.0, 0.0)),
    "kill PostgreSQL": (1.5, (0.0, 2.0)),
    "restart PostgreSQL": (1.5, (0.0, 1.0)),
    "freeze PostgreSQL": (2, (1.0, 10.0)),
    "end connections of PostgreSQL": (3, (0.0, 0.0)),
    "slow line": (4, (1.0, 6.0)),
    "narrow line": (2, (1.0, 6.0)),
    "cut line": (4, (0.5, 5.0)),
    "reset line": (4, (0.0, 0.0)),
    "half-open line": (4, (1.0, 9.0)),
    "swallowing line": (3, (1.0, 9.0)),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """At `at_s` seconds of the run, for `for_s`; `pick` in [0, 1) says to whom, of those it can happen to then."""

    at_s: float
    kind: str
    for_s: float
    pick: float


def drawn(seed: int, seconds: float) -> list[Fault]:
    """The faults of a run of this length. A longer run begins with the same ones."""
    chance = random.Random(f"faults of {seed}")
    kinds = list(KINDS)
    weights = [weight for weight, _ in KINDS.values()]
    faults: list[Fault] = []
    at_s = 2.0
    while (at_s := at_s + chance.expovariate(1 / GAP_S)) < seconds:
        kind = chance.choices(kinds, weights)[0]
        faults.append(Fault(at_s, kind, chance.uniform(*KINDS[kind][1]), chance.random()))
    return faults

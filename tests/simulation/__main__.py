"""`python -m tests.simulation --seeds 500 [--first 0]` or `--seed 7`: explores, prints counts and every failure."""

import argparse
import os
import sys
import time
from collections.abc import Iterable

from tests.simulation.explore import PROCESSES, explore
from tests.simulation.report import Summary, schedule
from tests.simulation.spoil import SPOILT


def main() -> int:
    """0 when every promise held, or each one that was broken on purpose was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, action="append", help="only this one, with its whole schedule")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument(
        "--spoil", choices=SPOILT, action="append", default=[], help="break this promise on purpose and find it out"
    )
    parser.add_argument("--digests", action="store_true", help="print the hash of each seed's trace")
    asked = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of words are visited in the order of their hashes: one seed gives one run only under one hash seed.
        again = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})
    seeds = asked.seed or range(asked.first, asked.first + asked.seeds)
    if asked.spoil:
        found = [_found_out(name, seeds, asked.processes) for name in asked.spoil]
        return 0 if all(found) else 1
    summary = Summary()
    began = time.monotonic()
    for outcome in explore(seeds, processes=asked.processes):
        summary.add(outcome)
        if asked.digests:
            print(f"trace of seed {outcome.seed}: {outcome.digest}", flush=True)
        if asked.seed or outcome.violations:
            print(schedule(outcome), flush=True)
    print(summary.text(time.monotonic() - began))
    return 1 if summary.failed else 0


def _found_out(name: str, seeds: Iterable[int], processes: int) -> bool:
    """Whether some seed shows that this promise is broken; the first one does."""
    for outcome in explore(seeds, processes=processes, prepare=SPOILT[name]):
        if outcome.violations:
            print(f"{name}: found by seed {outcome.seed}: {outcome.violations[0]}", flush=True)
            return True
    print(f"{name}: not found", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())

"""The simulator itself: it keeps every promise over many seeds, repeats exactly, and finds what is spoilt on purpose."""

import os
import re
import subprocess
import sys

import pytest

from tests.figures import note
from tests.simulation.spoil import QUICKLY_FOUND, SPOILT

pytestmark = pytest.mark.long

SEEDS = 500
SLOW_SEEDS = 5000
BOUND_S = 900.0  # 500 seeds take a minute on two cores of their own; they may have to share them


def simulated(*arguments: str, bound_s: float = BOUND_S) -> subprocess.CompletedProcess[str]:
    """A run of the simulator in a process of its own: sets of words keep one order under one hash seed only."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=bound_s,
        check=False,
    )


@pytest.fixture(scope="module")
def explored() -> subprocess.CompletedProcess[str]:
    """The seeds of this run, explored once."""
    return simulated("--seeds", str(SEEDS), "--digests")


@pytest.mark.timeout(BOUND_S + 30)
def test_every_promise_holds_over_many_seeds(
    explored: subprocess.CompletedProcess[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert explored.returncode == 0, explored.stdout[-20_000:] + explored.stderr[-5_000:]
    assert len(traces(explored.stdout)) == SEEDS
    note({"text": "simulated: " + "\n".join(explored.stdout.splitlines()[SEEDS:])})


@pytest.mark.timeout(BOUND_S + 30)
def test_a_seed_repeats_exactly_and_prints_its_schedule(explored: subprocess.CompletedProcess[str]) -> None:
    again = simulated("--digests", *(word for seed in range(8) for word in ("--seed", str(seed))))
    assert traces(again.stdout) == {seed: trace for seed, trace in traces(explored.stdout).items() if seed < 8}
    assert {"starts", "commits", "FAULT", "ended"} <= set(again.stdout.split())


def traces(output: str) -> dict[int, str]:
    """The hash of everything that happened, by seed."""
    return {int(seed): digest for seed, digest in re.findall(r"^trace of seed (\d+): (\w+)$", output, re.MULTILINE)}


@pytest.mark.timeout(BOUND_S + 30)
def test_promises_broken_on_purpose_are_found() -> None:
    spoilt = [word for name in QUICKLY_FOUND for word in ("--spoil", name)]
    run = simulated("--seeds", "200", *spoilt)
    assert run.returncode == 0, run.stdout + run.stderr[-5_000:]
    assert run.stdout.count(": found by seed ") == len(QUICKLY_FOUND)


@pytest.mark.slow
@pytest.mark.timeout(10 * BOUND_S)
def test_every_promise_broken_on_purpose_is_found_within_thousands_of_seeds() -> None:
    spoilt = [word for name in SPOILT for word in ("--spoil", name)]
    run = simulated("--seeds", str(SLOW_SEEDS), *spoilt, bound_s=9 * BOUND_S)
    assert run.returncode == 0, run.stdout + run.stderr[-5_000:]


@pytest.mark.slow
@pytest.mark.timeout(10 * BOUND_S)
def test_every_promise_holds_over_thousands_of_seeds() -> None:
    run = simulated("--first", str(SEEDS), "--seeds", str(SLOW_SEEDS), bound_s=9 * BOUND_S)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-5_000:]

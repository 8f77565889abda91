"""A short soak in every run of the tests, with a seed of its own that a failure prints."""

import secrets
import sys

import pytest

from tests.figures import note
from tests.servers import PostgresServer, RabbitServer
from tests.soak.plan import KINDS, drawn
from tests.soak.run import soak

pytestmark = pytest.mark.long


def test_a_seed_names_a_plan_and_a_longer_run_begins_with_it() -> None:
    minute = drawn(7, 60)
    assert minute == drawn(7, 600)[: len(minute)]
    assert minute != drawn(8, 60)
    assert {fault.kind for fault in drawn(7, 3600)} == set(KINDS)


@pytest.mark.timeout(420)
async def test_a_minute_of_random_faults_loses_repeats_and_reorders_nothing(
    postgres: PostgresServer, rabbit: RabbitServer, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = secrets.randbelow(1_000_000)
    with capsys.disabled():
        sys.stdout.write(f"\nmake soak MINUTES=1 SEED={seed}\n")
    summary = await soak(seed, 1.0, postgres, rabbit)
    note({"text": f"a soak, make soak MINUTES=1 SEED={seed}:\n{summary}"})
    assert summary.counts.jobs >= len(summary.crowd.told.accepted) > 0
    assert sum(summary.fleet.faults.values()) > 0

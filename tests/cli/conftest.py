"""One server for the tests that only need one, as a person starts it."""

import json
from collections.abc import Callable, Iterator

import pytest

from tests.cli.program import Run, Up, in_process

# A lost worker is replaced within a second or two instead of ten.
HASTY = {"PHASELINE_LEASE_S": "1.5", "PHASELINE_BEAT_S": "0.4", "PHASELINE_SWEEP_S": "0.3", "PHASELINE_LEADER_S": "1"}


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`phaseline up`, shared."""
    server = Up(tmp_path_factory.mktemp("up") / "data", PHASELINE_ENGINE_MODULES="tests.engines", **HASTY)
    server.start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def fresh_up(tmp_path) -> Iterator[Up]:
    """`phaseline up` for one test alone, to be killed."""
    server = Up(tmp_path / "data", **HASTY)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cli(up: Up) -> Callable[..., Run]:
    """Runs a command against the shared server."""
    return lambda *words, **more: in_process(*words, PHASELINE_URL=up.url, **more)


@pytest.fixture
def a_job(cli) -> Callable[..., dict]:
    """Makes a job and returns it, ended if `--follow` is among the words."""

    def make(*words: str) -> dict:
        run = cli("submit", "countdown", "-o", "json", *words)
        assert run.out, run.err
        return json.loads(run.out)

    return make

"""Fixtures for tests of engines and of programs that use jobs; pytest finds them by itself once Phaseline is installed.

    def test_my_engine(run_engine):
        assert run_engine(my_engine, {"pages": 2}).results == {"letters": 22}

    def test_my_program(phaseline_service):
        assert phaseline_service.run("read_pages", {"pages": 2}).status == "completed"

The service is started once a run, with the engines of the modules that the ini option `phaseline_engines` names.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from phaseline.testing import Ran, Service


def pytest_addoption(parser: pytest.Parser) -> None:
    """One ini option."""
    parser.addini("phaseline_engines", "modules whose engines `phaseline_service` runs", type="args", default=[])


@pytest.fixture
def run_engine() -> "Callable[..., Ran]":
    """`phaseline.testing.run_engine`: one attempt of an engine in this thread, on a clock of its own."""
    from phaseline import testing  # whoever runs other tests does not pay for it

    return testing.run_engine


@pytest.fixture(scope="session")
def phaseline_service(request: pytest.FixtureRequest) -> "Iterator[Service]":
    """A whole Phaseline beside the tests, shared by all of a run."""
    from phaseline import testing

    with testing.service(*request.config.getini("phaseline_engines")) as service:
        yield service

"""Servers for the tests that ask for them, started while the others run, and what the summary must say."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests import figures
from tests.servers import PostgresServer, RabbitServer, Servers, ServerUnavailable

_S = TypeVar("_S")

_servers = Servers()


def pytest_configure(config: pytest.Config) -> None:
    """One file of figures for all processes of the run."""
    if not hasattr(config, "workerinput") and figures.VARIABLE not in os.environ:
        with tempfile.NamedTemporaryFile(prefix="phaseline-figures-", delete=False) as file:
            os.environ[figures.VARIABLE] = file.name
        config.add_cleanup(lambda: Path(os.environ.pop(figures.VARIABLE)).unlink())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long with few tests come first: begun last, one would keep a process busy while the other has ended."""
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begins to start the servers that some collected test asks for; nothing for a run without them."""
    if not session.config.option.collectonly:
        asked = {name for item in session.items for name in getattr(item, "fixturenames", ())}
        if "postgres_versions" in asked:
            asked |= {"postgres", "postgres_18"}
        _servers.prepare(*(name for name in ("rabbit", "postgres", "postgres_18") if name in asked))


def pytest_unconfigure() -> None:
    _servers.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Real league data is no part of the repository: what was not checked without it is said, not left out."""
    if (path := Path(os.environ[figures.VARIABLE])).exists() and (lines := figures.summary(path)):
        terminalreporter.section("what was broken, checked and measured")
        for line in lines:
            terminalreporter.line(line)
    checks = [] if os.environ.get("PHASELINE_FPL_DATA") else _real_data_checks()
    if checks:
        terminalreporter.section("not checked: PHASELINE_FPL_DATA names no folder of real league data")
        for check in checks:
            terminalreporter.line(f"  {check}")


@pytest.fixture(scope="session")
def postgres() -> PostgresServer:
    """The PostgreSQL server of this run: the oldest supported version on this machine."""
    return _or_error(_servers.postgres)


@pytest.fixture(scope="session")
def postgres_18() -> PostgresServer:
    """PostgreSQL 18."""
    return _or_error(_servers.postgres_18)


@pytest.fixture(scope="session", params=["postgres", "postgres_18"])
def postgres_versions(request: pytest.FixtureRequest) -> PostgresServer:
    """Each PostgreSQL in turn, for promises that every version must keep."""
    server: PostgresServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def rabbit() -> RabbitServer:
    """The RabbitMQ server of this run."""
    return _or_error(_servers.rabbit)


def _or_error(server: Callable[[], _S]) -> _S:
    """Without its server the run ends with one message instead of the same one for each test."""
    try:
        return server()
    except ServerUnavailable as problem:
        pytest.exit(str(problem), returncode=pytest.ExitCode.USAGE_ERROR)


def _real_data_checks() -> list[str]:
    """What the collected modules of tests/fpl say they check on real data only (`REAL_DATA_CHECKS`)."""
    loaded = [module for name, module in sorted(sys.modules.items()) if name.startswith("tests.fpl")]
    return list(dict.fromkeys(check for module in loaded for check in getattr(module, "REAL_DATA_CHECKS", ())))

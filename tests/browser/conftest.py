"""A browser and a whole Phaseline, shared by the tests of a module."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page

from tests import servers
from tests.browser.browsing import chromium
from tests.installation import Installation, embedded, running
from tests.integration.conftest import ENVIRONMENT
from tests.node import installed

BOUND_MS = 30_000


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Installs what is missing before any test's timeout runs."""
    if not config.option.collectonly and any(item.path.parent == Path(__file__).parent for item in items):
        servers.chromium()
        installed(Path(__file__).parent)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phaseline(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with running(embedded(tmp_path_factory.mktemp("pages"), **ENVIRONMENT)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, phaseline: Installation) -> AsyncIterator[Page]:
    """A page on that Phaseline. Afterwards no script of it has failed and the browser has refused it nothing."""
    async with asyncio.timeout(90):
        context = await browser.new_context(base_url=phaseline.url, viewport={"width": 1280, "height": 900})
        context.set_default_timeout(BOUND_MS)
        opened = await context.new_page()
    complaints: list[Any] = []

    def heard(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            complaints.append(message.text)

    opened.on("pageerror", lambda failure: complaints.append(failure))  # noqa: PLW0108 playwright marks what it is given
    opened.on("console", heard)
    opened.on("dialog", lambda dialog: complaints.append(dialog.message))
    yield opened
    await context.close()
    assert complaints == []

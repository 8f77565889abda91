"""The pages where a key is asked for, in a real browser."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from events.acts import By
from phaseline import database
from phaseline.settings import Settings
from tests.browser.watching import at_least
from tests.installation import Installation, embedded, running
from tests.integration.conftest import ENVIRONMENT

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("login")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phaseline(folder: Path) -> AsyncIterator[Installation]:
    async with running(embedded(folder, PHASELINE_AUTH="keys", **ENVIRONMENT)) as made:
        yield made


async def test_a_key_opens_the_pages_and_their_streams_until_it_is_given_back(
    page: Page, phaseline: Installation, folder: Path
):
    settings = Settings(data_dir=folder, database_url=None)
    _, text = await database.create_key(settings, "default", "", ["submit", "read"], None, By("user:test"))
    headers = {"Authorization": f"Bearer {text}"}
    body = {"engine": "countdown", "params": {"steps": 1000, "step_s": 0.1}}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{phaseline.url}/api/v1/jobs", json=body) as made,
    ):
        job_id = (await made.json())["id"]

    await page.goto(f"/jobs/{job_id}")
    await expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()
    await page.get_by_label("API key").fill(text.replace("_", "_x"))
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_text("This key is not known here.")).to_be_visible()
    await page.get_by_label("API key").fill(text)
    await page.get_by_role("button", name="Log in").click()
    await at_least(page, 5)  # over a WebSocket that carries the cookie
    assert text not in await page.evaluate("document.cookie + JSON.stringify({ ...localStorage, ...sessionStorage })")
    await page.context.clear_cookies()  # as when the key has ended, or another tab has logged out
    # Whoever asks first hears of it: the button, or a look of the page's own, which takes the button away.
    await page.evaluate("[...document.querySelectorAll('button')].find((one) => one.textContent === 'Cancel')?.click()")
    await expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()
    await page.get_by_label("API key").fill(text)
    await page.get_by_role("button", name="Log in").click()
    await at_least(page, 5)
    await page.goto("/workers")
    await expect(page.get_by_text("it needs the scope admin")).to_be_visible()
    await page.goto("/audit")
    await expect(page.get_by_text("it needs the scope admin")).to_be_visible()
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()

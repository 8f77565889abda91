"""The page of the audit, in a real browser, on a Phaseline of its own whose database is tampered with."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from events.acts import By
from phaseline import database
from phaseline.settings import Settings
from tests.browser.test_pages import HOSTILE, ended, submit
from tests.browser.watching import BOUND_MS
from tests.installation import Installation, api, embedded, running
from tests.integration.conftest import ENVIRONMENT

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phaseline(folder: Path) -> AsyncIterator[Installation]:
    async with running(embedded(folder, PHASELINE_SEAL_S="0.2", PHASELINE_AUTH="open", **ENVIRONMENT)) as made:
        yield made


async def test_acts_come_as_they_are_done_as_text_and_a_check_names_what_was_changed(
    page: Page, phaseline: Installation, folder: Path
):
    job_id = await submit(phaseline, "countdown", {"steps": 1, "step_s": 0})
    await ended(phaseline, job_id)
    acts = page.get_by_role("region", name="Administrative acts").first
    await page.goto("/audit")
    await expect(acts).to_contain_text("Nobody has administered anything yet.", timeout=BOUND_MS)
    await expect(page.locator("#connection")).to_have_text("live", timeout=BOUND_MS)
    by = By(f"user:{HOSTILE}", None, f"because {HOSTILE}")
    await database.set_webhooks(Settings(data_dir=folder, database_url=None), "default", None, by)
    await expect(acts).to_contain_text(f"because {HOSTILE}", timeout=BOUND_MS)  # live, by the feed
    await expect(page.get_by_role("list", name="Events as they come")).to_contain_text("webhooks set")
    await page.reload()
    await expect(acts).to_contain_text(f"user:{HOSTILE}", timeout=BOUND_MS)  # from the log

    # A check sees what is sealed: until then it says what is not.
    status = page.get_by_role("region", name="Verify").get_by_role("status")
    async with api(phaseline.url) as http:
        await http.post(f"/api/v1/jobs/{job_id}/hold", {"reason": "case 4711"})
    await expect(acts).to_contain_text("case 4711", timeout=BOUND_MS)
    for _ in range(60):
        await page.get_by_role("button", name="Verify").click()
        await expect(status).to_contain_text("nothing is wrong", timeout=BOUND_MS)
        if "not sealed" not in await status.inner_text():
            break
    await expect(status).to_contain_text("2 acts, 1 jobs")

    with sqlite3.connect(folder / database.SQLITE_FILE, timeout=30) as owner:
        owner.execute("DROP TRIGGER events_no_update")
        owner.execute("UPDATE events SET actor = 'user:nobody' WHERE job_id = ? AND seq = 2", (job_id,))
    owner.close()
    await page.get_by_role("button", name="Verify").click()
    await expect(status).to_contain_text(f"the first: stream {job_id} event 2: changed", timeout=BOUND_MS)
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Export").click()
    saved = await (await downloading.value).path()
    assert '"kind":"end"' in saved.read_text().splitlines()[-1]

    # What a record says is in an archive that this gateway does not know is not called right.
    columns = "job_id, tenant, engine, status, last_seq, finished_at, at, place, start, length"
    moved = "SELECT id, tenant, engine, status, last_seq, finished_at, finished_at, 'somewhere', 0, 9 FROM jobs"
    with sqlite3.connect(folder / database.SQLITE_FILE, timeout=30) as owner:
        owner.execute(f"INSERT INTO archived ({columns}) {moved} WHERE id = ?", (job_id,))
        owner.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
    owner.close()
    await page.get_by_role("button", name="Verify").click()
    await expect(status).to_contain_text("not whole", timeout=BOUND_MS)
    await expect(status).to_contain_text("1 archived jobs could not be verified")

"""The pages of schedules, in a real browser: what is made, paused and removed there is so for the API."""

import pytest
from playwright.async_api import Page, expect

from tests.browser.watching import BOUND_MS
from tests.installation import Installation, api

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


async def test_a_schedule_is_made_from_the_form_paused_looked_at_and_deleted(  # noqa: PLR0915 one life
    page: Page, phaseline: Installation
):
    await page.goto("/schedules")
    form = page.get_by_role("form", name="A new schedule")
    await form.get_by_label("Name").fill("from the page")
    await form.get_by_label("When").fill("0 6 * *")
    await form.get_by_label("Engine").select_option("countdown")
    await form.get_by_label("Params").fill('{"steps": 0}')
    create = form.get_by_role("button", name="Create")
    await create.click()
    name = form.get_by_label("Name")
    await expect(name).to_have_attribute("aria-invalid", "true", timeout=BOUND_MS)
    await expect(name).to_be_focused()
    await name.fill("page-1")
    await create.click()
    await expect(form.locator("#s-params-wrong")).to_contain_text("steps", timeout=BOUND_MS)
    await form.get_by_label("Params").fill('{"steps": 3}')
    await create.click()
    await expect(form.locator("#s-cron-wrong")).to_contain_text("five fields", timeout=BOUND_MS)
    await form.get_by_label("When").fill("0 6 * * 5")
    await create.click()
    row = page.get_by_role("row").filter(has_text="page-1")
    await expect(row).to_contain_text("0 6 * * 5", timeout=BOUND_MS)
    async with api(phaseline.url) as http:
        made = await http.get("/api/v1/schedules/page-1")
        assert (made["job"]["params"]["steps"], made["catch_up"], made["paused"]) == (3, "last", False)
        await expect(row.locator("time")).to_have_attribute("datetime", made["next_at"])
        await row.get_by_role("button", name="Pause").click()
        await expect(row).to_contain_text("paused", timeout=BOUND_MS)
        assert (await http.get("/api/v1/schedules/page-1"))["paused"]

        await row.get_by_role("link", name="page-1").click()
        acts = page.get_by_role("region", name="What was done")
        await expect(acts.get_by_role("row")).to_have_count(3, timeout=BOUND_MS)  # its head, created, paused
        await expect(acts).to_contain_text("user:anonymous")
        await page.get_by_role("button", name="Resume").click()
        await expect(acts).to_contain_text("resumed", timeout=BOUND_MS)

        await page.get_by_role("button", name="Delete").click()
        await page.get_by_role("dialog", name="Delete the schedule page-1?").get_by_role("button", name="Yes").click()
        await page.wait_for_url("**/schedules")
        await expect(page.get_by_role("region", name="All")).to_contain_text("There is none yet.", timeout=BOUND_MS)
        assert (await http.get("/api/v1/schedules"))["schedules"] == []
    await page.goto("/schedules/page-1")
    await expect(page.locator("main")).to_contain_text("There is no such schedule.", timeout=BOUND_MS)

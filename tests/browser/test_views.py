"""What the pages say of a decision, of a job's events, and of the whole, against what the API says."""

import json

import pytest
from playwright.async_api import Page, expect

from tests.browser.test_pages import ended, submit
from tests.browser.watching import BOUND_MS, at_least, complete, sequences
from tests.installation import Installation, api

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


async def test_a_decision_is_on_the_pitch_with_its_captain_bench_transfers_and_search(
    page: Page, phaseline: Installation
):
    job_id = await submit(phaseline, "fpl", {"team_id": 1, "time_limit_s": 4})
    await ended(phaseline, job_id)
    async with api(phaseline.url) as http:
        decided = await http.get(f"/api/v1/jobs/{job_id}/results")
    lineup, plan = decided["lineup"], decided["transfer_plan"]["gameweeks"]
    await page.goto(f"/jobs/{job_id}")
    pitch = page.locator(".pitch")
    await expect(pitch.locator("li.player")).to_have_count(11, timeout=BOUND_MS)
    await expect(pitch).to_have_css("display", "grid")  # its styles came with it, and those of plots
    await expect(page.locator("svg.plot").first).to_have_css("display", "block")
    names = await pitch.locator("li.player > b").all_text_contents()
    assert sorted(names) == sorted(player["name"] for player in lineup["starters"])
    bench = await page.locator("ul.bench li.player > b").all_text_contents()
    assert bench == [player["name"] for player in lineup["bench"]]  # in its order
    captain = pitch.locator("li.player", has=page.get_by_role("img", name="captain", exact=True))
    await expect(captain.locator("b")).to_have_text(lineup["captain"]["name"])
    await expect(page.locator("ul.transfers > li")).to_have_count(len(plan[0]["transfers"]))
    for week in plan:
        await expect(page.get_by_role("region", name="Points by gameweek")).to_contain_text(f"GW{week['gameweek']}")
    await expect(page.locator(".view")).to_contain_text("best plan")  # the search, drawn from the partial results


async def test_the_events_of_a_job_can_be_paused_filtered_jumped_to_opened_and_downloaded(
    page: Page, phaseline: Installation
):
    job_id = await submit(phaseline, "countdown", {"steps": 120, "step_s": 0.1})
    await page.goto(f"/jobs/{job_id}")
    await at_least(page, 30)
    await page.get_by_label("Jump to sequence").fill("7")
    await page.get_by_role("button", name="Jump", exact=True).click()
    row = page.locator('.events li[data-seq="7"]')
    await expect(row.get_by_role("button")).to_be_focused()
    await expect(page.get_by_role("button", name="Follow", pressed=False)).to_be_visible()
    await page.keyboard.press("Enter")
    shown = json.loads(await row.locator("pre").inner_text())
    async with api(phaseline.url) as http:
        page_of_events = await http.get(f"/api/v1/jobs/{job_id}/events?after=6&limit=1")
    assert shown == page_of_events["events"][0]
    await page.get_by_label("Show only").select_option("started")
    await expect(page.locator(".events li:visible")).to_have_count(1)
    await page.get_by_label("Show only").select_option("")
    await page.get_by_role("button", name="Cancel").click()
    await complete(page)
    job = await ended(phaseline, job_id)
    assert await sequences(page) == list(range(1, job["seq"] + 1))
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Download", exact=True).click()
    saved = await (await downloading.value).path()
    assert [json.loads(line)["seq"] for line in saved.read_text().splitlines()] == list(range(1, job["seq"] + 1))


async def test_a_list_longer_than_a_page_can_hold_keeps_the_last_events_and_says_so(
    page: Page, phaseline: Installation
):
    job_id = await submit(phaseline, "chatty", {"events": 20_300, "size": 1})
    job = await ended(phaseline, job_id)
    await page.goto(f"/jobs/{job_id}")
    await at_least(page, job["seq"])
    shown = await sequences(page)
    assert shown == list(range(shown[0], job["seq"] + 1))
    assert 19_900 < len(shown) <= 20_000
    # By selectors: Playwright's labels and roles would name all of the rows first.
    jump = page.locator('input[aria-label="Jump to sequence"]')
    count = page.locator('input[aria-label="Jump to sequence"] ~ span')
    await expect(count).to_have_text(f"the last {len(shown)} events")
    await expect(page.locator("p.soft", has_text="Earlier events are in the download.")).to_be_visible()
    await jump.fill("5")
    await jump.press("Enter")
    await expect(page.locator("#notices")).to_contain_text("Event 5 is not in the list")
    await page.locator('select[aria-label="Show only"]').select_option("complete")
    await expect(count).to_have_text(f"1 of the last {len(shown)} events")


async def test_the_overview_counts_what_the_api_counts(page: Page, phaseline: Installation):
    job_id = await submit(phaseline, "countdown", {"steps": 1, "step_s": 0})
    await ended(phaseline, job_id)
    async with api(phaseline.url) as http:
        stats = await http.get("/api/v1/stats")
    await page.goto("/")
    for status in ("queued", "running", "completed", "failed", "cancelled"):
        tile = page.locator(f'a.tile[href="/jobs?q=status:{status}"] b')
        await expect(tile).to_have_text(str(stats["jobs"].get(status, 0)))
    health = page.get_by_role("region", name="Health")
    await expect(health).to_contain_text("sqlite")
    await expect(health.locator(".badge")).to_have_text(["up", "up"])
    await expect(page.get_by_role("region", name="Wait for a worker")).to_contain_text("99 % within")

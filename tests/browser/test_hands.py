"""What a person does with the pages while everything moves, or while the server is away: nothing slips from under the hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.async_api import Page, Request, Route, expect

from tests.browser.test_pages import ended, submit
from tests.browser.watching import BOUND_MS, at_least, complete, problems_of, sequences
from tests.installation import Installation, api

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

LATER = {"not_before": "2126-11-24T00:00:00Z"}
LOOKS = 4
LOOK_GAP_MS = 900  # between two looks of the overview, whatever happens meanwhile: its own second, less rounding


@asynccontextmanager
async def running(phaseline: Installation, go_on: Path, *, tag: str = "moving") -> AsyncIterator[str]:
    """A job for the block, which makes progress once `go_on` exists."""
    job_id = await submit(phaseline, "moving", {"path": str(go_on)}, tags=[tag])
    try:
        yield job_id
    finally:
        async with api(phaseline.url) as http:
            await http.post(f"/api/v1/jobs/{job_id}/cancel", {"mode": "force"}, 200)


async def moved(page: Page, job_id: str, times: int) -> None:
    """Waits until the bar of a row has moved so often."""
    await page.evaluate(
        """([id, times]) => new Promise((resolve) => {
          let last = null;
          const timer = setInterval(() => {
            const width = document.querySelector(`[data-job="${id}"] .progress i`)?.style.width;
            if (width && width !== last && last !== null) times -= 1;
            last = width ?? last;
            if (times < 1) clearInterval(timer), resolve();
          }, 20);
        })""",
        [job_id, times],
    )


async def test_a_row_that_moves_while_it_is_clicked_opens_its_job_and_keeps_the_focus(
    page: Page, phaseline: Installation, tmp_path: Path
):
    go_on = tmp_path / "go"
    go_on.touch()
    async with running(phaseline, go_on, tag="clicked") as job_id:
        await page.goto("/jobs?q=tag:clicked")
        link = page.locator(f'[data-job="{job_id}"] a')
        await expect(page.locator(f'[data-job="{job_id}"] .badge')).to_have_text("running", timeout=BOUND_MS)
        await link.focus()
        await page.evaluate("window.focuses = 0; document.addEventListener('focusin', () => { window.focuses += 1; })")
        await moved(page, job_id, 3)
        await expect(link).to_be_focused()
        assert await page.evaluate("window.focuses") == 0  # a screen reader would read it out each time
        await link.hover()
        await page.mouse.down()
        await moved(page, job_id, 2)
        await page.mouse.up()
        await page.wait_for_url(f"**/jobs/{job_id}")


async def test_older_jobs_stay_when_the_connection_comes_back_and_a_failure_is_told(
    page: Page, phaseline: Installation
):
    for _ in range(52):
        await submit(phaseline, "echo", {"text": "x"}, tags=["many"], **LATER)
    broken = True

    async def older(route: Route) -> None:
        if broken:
            await route.fulfill(status=500, json={"detail": "a fault of the service"})
        else:
            await route.continue_()

    await page.route("**/api/v1/jobs?*cursor=*", older)
    await page.goto("/jobs?q=tag:many")
    await expect(page.locator("[data-job]")).to_have_count(50)
    await page.get_by_role("button", name="Older jobs").click()
    await expect(page.locator(".notice")).to_contain_text("a fault of the service")
    broken = False
    await page.get_by_role("button", name="Older jobs").click()
    await expect(page.locator("[data-job]")).to_have_count(52)
    light = page.locator("#connection")
    await page.context.set_offline(True)
    await expect(light).to_have_attribute("data-state", "waiting")
    async with page.expect_response(lambda answer: "/api/v1/jobs?" in answer.url):
        await page.context.set_offline(False)
        await expect(light).to_have_attribute("data-state", "live", timeout=BOUND_MS)
    await submit(phaseline, "echo", {"text": "x"}, tags=["none"], **LATER)
    await expect(page.locator("[data-job]")).to_have_count(52)


async def test_however_much_happens_the_overview_looks_once_a_second(page: Page, phaseline: Installation):
    began: list[float] = []

    def asked(request: Request) -> None:
        if request.url.endswith("/api/v1/stats"):
            began.append(request.timing["startTime"])

    await page.goto("/")
    await expect(page.locator("#connection")).to_have_attribute("data-state", "live")
    page.on("requestfinished", asked)
    async with asyncio.timeout(BOUND_MS / 1000):
        while len(began) < LOOKS:  # something happens all the while
            await ended(phaseline, await submit(phaseline, "countdown", {"steps": 1, "step_s": 0}))
    gaps = [later - earlier for earlier, later in pairwise(began)]
    assert min(gaps) >= LOOK_GAP_MS, gaps


async def test_a_screen_reader_hears_of_phases_and_not_of_every_percent(
    page: Page, phaseline: Installation, tmp_path: Path
):
    go_on = tmp_path / "go"
    async with running(phaseline, go_on) as job_id:
        await page.goto(f"/jobs/{job_id}")
        said = page.locator(".head [role=status]")
        await expect(said).to_have_text("running, collecting data", timeout=BOUND_MS)
        go_on.touch()
        await expect(said).to_have_text("running, analyzing", timeout=BOUND_MS)
        await page.evaluate(
            """window.heard = 0; for (const live of document.querySelectorAll("main [role=status], main [aria-live]"))
              new MutationObserver(() => { window.heard += 1; }).observe(live, {subtree: true, childList: true, characterData: true})"""
        )
        await at_least(page, max(await sequences(page)) + 5)
        assert await page.evaluate("window.heard") == 0


async def test_a_partial_result_that_is_open_stays_open_when_the_next_one_comes(
    page: Page, phaseline: Installation, tmp_path: Path
):
    go_on = tmp_path / "go"
    job_id = await submit(phaseline, "held", {"path": str(go_on)})
    await page.goto(f"/jobs/{job_id}")
    partial = page.get_by_role("region", name="Partial results").locator("details").first
    said = partial.locator("summary").first
    await said.click(timeout=BOUND_MS)
    await expect(said).not_to_have_text(await said.inner_text(), timeout=BOUND_MS)
    await expect(partial).to_have_attribute("open", "")
    await expect(partial).to_contain_text("count")
    go_on.touch()
    await complete(page)


async def test_who_tabs_through_the_engines_is_not_sent_back_at_each_look(page: Page):
    await page.goto("/workers")
    link = page.locator('a[href="/submit/countdown"]')
    await link.focus()
    for _ in range(2):
        async with page.expect_response("**/api/v1/stats"):
            pass
    await expect(link).to_be_focused()


async def test_a_page_that_cannot_be_loaded_says_so_and_comes_by_itself(page: Page, phaseline: Installation):
    job_id = await submit(phaseline, "countdown", {"steps": 1, "step_s": 0})
    await page.goto("/")
    for pattern, link, heading in (("**/api/v1/session", "Jobs", "Jobs"), ("**/web/workers.js", "Workers", "Workers")):
        await page.route(pattern, lambda route: route.abort())
        await page.get_by_role("navigation").get_by_role("link", name=link).click()
        await expect(page.get_by_role("heading", name="The server does not answer")).to_be_visible()
        await page.unroute(pattern)
        await expect(page.get_by_role("heading", name=heading, exact=True, level=1)).to_be_visible(timeout=BOUND_MS)
    where = f"**/api/v1/jobs/{job_id}"
    await page.route(where, lambda route: route.fulfill(status=500, json={"detail": "a fault of the service"}))
    await page.goto(f"/jobs/{job_id}")
    await expect(page.get_by_role("heading", name="The job cannot be shown")).to_be_visible()
    await expect(page.get_by_role("alert").first).to_have_text("a fault of the service")
    await page.unroute(where)
    await page.get_by_role("button", name="Try again").click()
    await complete(page)
    await page.goto(f"/jobs/{job_id}?at=900")
    await page.get_by_role("link", name="As it stands now").click()
    await complete(page)


async def test_a_download_that_fails_is_told_and_saves_nothing(page: Page, phaseline: Installation):
    job_id = await submit(phaseline, "countdown", {"steps": 1, "step_s": 0})
    await page.goto(f"/jobs/{job_id}")
    await complete(page)
    saved: list[str] = []
    page.on("download", lambda download: saved.append(download.suggested_filename))
    await page.route("**/events", lambda route: route.fulfill(status=500, json={"detail": "a fault of the service"}))
    await page.get_by_role("button", name="Download", exact=True).click()
    await expect(page.locator(".notice")).to_contain_text("a fault of the service")
    await page.unroute("**/events")
    await page.route("**/events", lambda route: route.abort())
    await page.get_by_role("button", name="Download", exact=True).click()
    await expect(page.locator(".notice")).to_have_count(2)
    assert saved == []


async def test_the_narrowest_phone_shows_the_longest_words(page: Page, phaseline: Installation):
    job_id = await submit(phaseline, "echo", {"text": "W" * 300, "fail": True}, tags=["t" * 64], max_attempts=1)
    await ended(phaseline, job_id)
    await page.set_viewport_size({"width": 320, "height": 640})
    for path in (f"/jobs/{job_id}", "/jobs?q=tag:" + "t" * 64):
        await page.goto(path)
        await page.locator("main").get_by_text("W" * 40).first.wait_for(state="attached")
        if path.endswith(job_id):
            await complete(page)
            await at_least(page, 4)
            await page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
        assert await problems_of(page) == []


async def test_what_a_long_job_says_is_gone_through_once(page: Page, phaseline: Installation):
    await page.add_init_script(
        "const parse = Date.parse; window.parsed = 0; Date.parse = (text) => { window.parsed += 1; return parse(text); };"
    )
    job_id = await submit(phaseline, "chatty", {"events": 10_000, "size": 200})
    await page.goto(f"/jobs/{job_id}")
    await complete(page)
    job = await ended(phaseline, job_id)
    await at_least(page, job["seq"])
    # Each event when it comes and in its row, and a few for the rest: not all of them again at each picture.
    assert await page.evaluate("window.parsed") < 3 * job["seq"]


async def test_a_form_made_from_a_job_changes_nothing_by_itself(page: Page, phaseline: Installation):
    job_id = await submit(phaseline, "unsure", {"steps": None})
    assert (await ended(phaseline, job_id))["params"] == {"steps": None, "sure": None}
    await page.goto(f"/submit/unsure?from={job_id}")
    await page.get_by_role("button", name="Run again").click()
    await page.wait_for_url(lambda url: "/jobs/" in url and job_id not in url)
    again = await ended(phaseline, page.url.rpartition("/")[2])
    assert again["params"] == {"steps": None, "sure": None}

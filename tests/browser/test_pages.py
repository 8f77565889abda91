"""The pages in a real browser on a whole Phaseline."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Page, Response, Route, ViewportSize, expect

from gateway.pages import WEB
from tests.browser.watching import BOUND_MS, at_least, complete, problems_of, sequences
from tests.installation import Installation, api

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

FIRST_LOAD_BYTES_MAX = 100_000
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
VIEWS = {
    "/": "Newest jobs",
    "/jobs": "Jobs",
    "/submit/fpl": "team id",
    "/schedules": "There is none yet.",
    "/workers": "Engines",
    "/live": "holes repaired",
    "/audit": "Administrative acts",
}


async def submit(phaseline: Installation, engine: str, params: dict[str, Any], **more: Any) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{phaseline.url}/api/v1/jobs", json={"engine": engine, "params": params, **more}) as made,
    ):
        assert made.status == 202, await made.text()
        job_id: str = (await made.json())["id"]
        return job_id


async def ended(phaseline: Installation, job_id: str) -> dict[str, Any]:
    """The job once its stream has ended."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{phaseline.url}/api/v1/jobs/{job_id}/stream") as socket,
    ):
        async for _ in socket:
            pass
        async with session.get(f"{phaseline.url}/api/v1/jobs/{job_id}") as shown:
            job: dict[str, Any] = await shown.json()
            return job


async def test_a_job_is_followed_across_a_reload_a_killed_server_and_a_lost_network(
    page: Page, phaseline: Installation
):
    job_id = await submit(phaseline, "countdown", {"steps": 100, "step_s": 0.25})
    await page.goto(f"/jobs/{job_id}")
    await at_least(page, 5)
    await expect(page.get_by_role("button", name="Follow", pressed=True)).to_be_visible()
    await page.reload()
    await at_least(page, 8)
    await page.context.set_offline(True)
    await expect(page.locator("#connection")).to_have_attribute("data-state", "waiting")
    await page.context.set_offline(False)
    await expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=BOUND_MS)
    await phaseline.kill("up")
    await expect(page.locator("#connection")).to_have_attribute("data-state", "waiting")
    await phaseline.start("up")
    await page.locator('.events li[data-type="started"]').nth(1).wait_for(state="attached", timeout=BOUND_MS)
    await page.get_by_role("button", name="Cancel").click()
    await complete(page)
    job = await ended(phaseline, job_id)
    assert await sequences(page) == list(range(1, job["seq"] + 1))
    await expect(page.locator(".head .badge")).to_have_text("cancelled")


async def test_what_a_job_says_is_shown_as_text_and_nothing_of_it_runs(page: Page, phaseline: Installation):
    for fail in (False, True):
        job_id = await submit(
            phaseline, "echo", {"text": HOSTILE, "fail": fail}, tags=[HOSTILE[:60]], max_attempts=2 if fail else 1
        )
        job = await ended(phaseline, job_id)
        await page.goto(f"/jobs/{job_id}")
        await complete(page)
        await at_least(page, job["seq"])
        for row in await page.locator(".events li > button").all():
            await row.click()
        for _ in range(3):  # what opens may hold more to open
            await page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
        await expect(page.locator(".view")).to_contain_text("<script>alert(2)</script>")
        assert await page.locator("main img, main script, main iframe").count() == 0
    await page.goto("/jobs")
    await expect(page.locator(".jobs .tag").first).to_contain_text("<img src=x")
    assert await page.locator("main img, main script").count() == 0


async def test_a_rerun_and_the_job_it_was_made_from_link_to_each_other(page: Page, phaseline: Installation):
    first = await submit(phaseline, "countdown", {"steps": 1, "step_s": 0})
    await ended(phaseline, first)
    async with api(phaseline.url) as http:
        second = (await http.post(f"/api/v1/jobs/{first}/rerun", {}, 202))["id"]
    await page.goto(f"/jobs/{first}")
    await page.get_by_role("region", name="Made from it").get_by_role("link").click()
    await page.wait_for_url(f"**/jobs/{second}")
    await page.get_by_role("region", name="Made from", exact=True).get_by_role("link").click()
    await page.wait_for_url(f"**/jobs/{first}")


async def test_a_job_is_submitted_and_cancelled_by_keyboard_alone(page: Page, phaseline: Installation):
    async def reach(name: str) -> None:
        for _ in range(60):
            await page.keyboard.press("Tab")
            focused = await page.evaluate(
                "(document.activeElement.textContent || document.activeElement.name || '').trim() + '#' + document.activeElement.id"
            )
            if name in focused.split("#"):
                return
        raise AssertionError(f"Tab never reached {name}")

    await page.goto("/")
    await reach("Submit")
    await page.keyboard.press("Enter")
    await page.locator("form.card").wait_for()
    await reach("f-steps")
    await page.keyboard.press("ControlOrMeta+A")
    await page.keyboard.type("500")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/jobs/*")
    await page.get_by_role("button", name="Cancel").wait_for()
    await reach("Cancel")
    await page.keyboard.press("Space")
    await complete(page)
    await expect(page.locator(".head .badge")).to_have_text("cancelled")


async def test_the_errors_of_attempts_are_compared(page: Page, phaseline: Installation):
    text = "the feed broke\nat page {attempt}7 of 9\nnothing was kept"
    job_id = await submit(phaseline, "echo", {"text": text, "fail": True}, max_attempts=2)
    await page.goto(f"/jobs/{job_id}")
    await complete(page)
    await expect(page.locator(".head .facts")).to_contain_text("waited")
    failure = page.get_by_role("region", name="Error")
    await failure.get_by_text("2 attempts ended badly, each in another way").click()
    second = failure.locator(".ends li").nth(1)
    await expect(second.locator("del")).to_have_text("− at page 17 of 9\n")
    await expect(second.locator("ins")).to_have_text("+ at page 27 of 9\n")
    await expect(second.locator("ins b")).to_have_text("2")
    await expect(second.locator("pre")).to_contain_text("nothing was kept")


async def test_a_running_job_says_who_made_it_and_when_its_time_is_over(page: Page, phaseline: Installation):
    timeouts = {"attempt_s": 7200, "total_s": 90_000, "stall_s": 630}
    job_id = await submit(phaseline, "countdown", {"steps": 1000, "step_s": 0.5}, timeouts=timeouts)
    await page.goto(f"/jobs/{job_id}")
    head = page.locator(".head .facts")
    for name, words in (
        ("by", "user:anonymous"),
        ("attempt must end", "in 1 h"),
        ("must end", "in 1 d 0 h"),
        ("next sign of life", "in 10 min"),
    ):
        await expect(head.locator("div", has=page.get_by_text(name, exact=True))).to_contain_text(words)
    await page.get_by_role("button", name="Cancel").click()
    await complete(page)
    await expect(head).not_to_contain_text("must end")


async def test_what_is_wrong_in_a_form_is_said_at_its_field(page: Page):
    await page.goto("/submit/countdown")
    steps = page.get_by_label("steps", exact=True)
    await steps.fill("0")
    await page.get_by_role("button", name="Submit", exact=True).click()
    await expect(steps).to_have_attribute("aria-invalid", "true")
    await expect(page.locator("#f-steps-wrong")).to_contain_text("greater than or equal to 1")
    await expect(steps).to_be_focused()


async def test_a_job_can_be_seen_as_it_stood_at_any_sequence(page: Page, phaseline: Installation):
    job_id = await submit(phaseline, "countdown", {"steps": 5, "step_s": 0})
    job = await ended(phaseline, job_id)
    await page.goto(f"/jobs/{job_id}?at=2")
    await expect(page.locator(".head .badge").first).to_have_text("as it was")
    await expect(page.locator(".head .state .badge")).to_have_text("running")
    await expect(page.locator(".events li:visible")).to_have_count(2)
    slider = page.get_by_label("Sequence shown")
    await slider.focus()
    await slider.press("Home")
    await page.wait_for_url("**?at=1")
    await expect(page.locator(".head .state .badge")).to_have_text("queued")
    await slider.press("End")
    await page.wait_for_url(f"**/jobs/{job_id}")
    await expect(page.locator(".events li:visible")).to_have_count(job["seq"])


async def test_the_list_of_jobs_moves_with_them(page: Page, phaseline: Installation):
    await page.goto("/jobs?q=status:running,completed tag:watched")
    await expect(page.get_by_text("No job matches.")).to_be_visible()
    job_id = await submit(phaseline, "countdown", {"steps": 8, "step_s": 0.2}, tags=["watched"])
    row = page.locator(f'[data-job="{job_id}"]')
    await expect(row.locator(".badge")).to_have_text("running", timeout=BOUND_MS)
    await expect(row.locator(".badge")).to_have_text("completed", timeout=BOUND_MS)
    await expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100")


async def test_a_bulk_action_is_counted_then_confirmed_then_told(page: Page, phaseline: Installation):
    later = {"not_before": "2126-11-24T00:00:00Z"}
    counted = [await submit(phaseline, "echo", {"text": "x"}, tags=["bulk"], **later) for _ in range(3)]
    other = await submit(phaseline, "echo", {"text": "x"}, tags=["spared"], **later)

    async def statuses() -> list[str]:
        async with api(phaseline.url) as http:
            return [(await http.get(f"/api/v1/jobs/{job_id}"))["status"] for job_id in [*counted, other]]

    await page.goto("/jobs?q=tag:bulk")
    await expect(page.locator("[data-job]")).to_have_count(3)
    await page.get_by_role("button", name="Cancel all").click()
    dialog = page.get_by_role("dialog", name="Cancel 3 jobs that tag:bulk finds?")
    await dialog.get_by_role("button", name="No").click()
    await expect(dialog).to_be_hidden()
    assert await statuses() == ["queued"] * 4
    late = await submit(phaseline, "echo", {"text": "x"}, tags=["bulk"], **later)
    await page.get_by_role("button", name="Cancel all").click()
    await page.get_by_role("dialog", name="Cancel 4 jobs").get_by_role("button", name="Yes").click()
    await expect(page.locator(".notice")).to_contain_text("4 of 4 jobs cancelled.")
    await expect(page.locator("[data-job] .badge")).to_have_text(["cancelled"] * 4)
    assert await statuses() == ["cancelled"] * 3 + ["queued"]
    assert (await ended(phaseline, late))["status"] == "cancelled"
    await page.get_by_role("button", name="Cancel all").click()
    await expect(page.locator(".notice").last).to_contain_text("nothing to cancel")


async def test_a_bulk_action_waits_where_there_is_no_room_for_more(page: Page, phaseline: Installation):
    later = {"not_before": "2126-11-24T00:00:00Z"}
    job_id = await submit(phaseline, "echo", {"text": "x"}, tags=["patient"], **later)
    refused, asked_again = asyncio.Event(), asyncio.Event()

    async def once(route: Route) -> None:
        confirmed = "confirm" in (route.request.post_data or "")
        if not confirmed or refused.is_set():
            if confirmed:
                asked_again.set()
            await route.continue_()
            return
        refused.set()
        await route.fulfill(
            status=429, headers={"Retry-After": "40"}, json={"detail": "no room"}
        )  # over a call's limit

    await page.route("**/api/v1/bulk", once)
    await page.clock.install()
    await page.goto("/jobs?q=tag:patient")
    await page.get_by_role("button", name="Cancel all").click()
    await page.get_by_role("dialog", name="Cancel one job").get_by_role("button", name="Yes").click()
    async with asyncio.timeout(BOUND_MS / 1000):
        await refused.wait()
        while not asked_again.is_set():
            await page.clock.fast_forward(5_000)
    await expect(page.locator(".notice")).to_contain_text("1 of 1 jobs cancelled.")
    assert (await ended(phaseline, job_id))["status"] == "cancelled"


async def test_the_page_of_the_api_shows_all_of_both_descriptions_and_asks_nobody_else(
    page: Page, phaseline: Installation
):
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    async with api(phaseline.url) as http:
        openapi, asyncapi = await http.get("/openapi.json"), await http.get("/asyncapi.json")
    problems = []
    for size in (ViewportSize(width=360, height=740), ViewportSize(width=1280, height=900)):
        await page.set_viewport_size(size)
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            await page.goto("/docs")
            await page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
            problems += [f"{size['width']} {scheme}: {problem}" for problem in await problems_of(page)]
    assert problems == []
    shown = await page.locator("summary code:first-child").all_text_contents()
    calls = [f"{method.upper()} {path}" for path, methods in openapi["paths"].items() for method in methods]
    channels = [channel["address"] for channel in asyncapi["channels"].values()]
    schemas = {**asyncapi["components"]["schemas"], **openapi["components"]["schemas"]}
    assert shown == [*calls, *channels, *sorted(schemas)]
    assert (
        await page.evaluate(
            "[...document.querySelectorAll('a[href^=\"#\"]')].filter(one => !document.getElementById(one.hash.slice(1))).length"
        )
        == 0
    )
    assert said == []
    assert {url.removeprefix(phaseline.url) for url in asked} <= {"/docs", "/favicon.ico"}


async def test_every_view_fits_a_phone_and_has_no_serious_accessibility_problem(page: Page, phaseline: Installation):
    job_id = await submit(phaseline, "fpl", {"team_id": 1, "time_limit_s": 4})
    failed = await submit(phaseline, "countdown", {"steps": 5, "step_s": 0, "fail_at": 2}, max_attempts=1)
    assert (await ended(phaseline, job_id))["status"] == "completed"
    await ended(phaseline, failed)
    views = {**VIEWS, f"/jobs/{job_id}": "Points by gameweek", f"/jobs/{failed}": "told to fail at step 2"}
    problems = []
    await page.set_viewport_size({"width": 360, "height": 740})
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        for path, words in views.items():
            await page.goto(path)
            await page.locator("main").get_by_text(words).first.wait_for()
            problems += [f"{path} {scheme}: {problem}" for problem in await problems_of(page)]
    assert problems == []


@pytest.mark.parametrize("path", ["/", "/jobs", "/submit", "/schedules", "/live", "/audit", "job"])
async def test_a_first_load_is_under_100_kb_and_asks_nobody_else(page: Page, phaseline: Installation, path: str):
    if path == "job":
        path = f"/jobs/{await submit(phaseline, 'countdown', {'steps': 1, 'step_s': 0})}"
    loaded: list[Response] = []
    page.on("response", lambda response: loaded.append(response))  # noqa: PLW0108 playwright marks what it is given
    await page.goto(path, wait_until="load")
    await page.locator("main h1").wait_for()
    assert all(one.url.startswith(phaseline.url) for one in loaded)
    names = {"index.html"} | {
        one.url.rpartition("/")[2] for one in loaded if "/web/" in one.url or "/client/" in one.url
    }
    assert {"app.js", "phaseline.js", "style.css"} <= names
    sizes = {name: (WEB / name).stat().st_size for name in names}  # before compression
    assert sum(sizes.values()) <= FIRST_LOAD_BYTES_MAX, sizes


async def test_a_page_with_nothing_but_a_websocket_shows_an_analysis(page: Page, phaseline: Installation):
    async def document(_: web.Request) -> web.Response:
        return web.Response(
            content_type="text/html",
            text=f"""<!doctype html><ol id=log></ol><script>
              const socket = new WebSocket("{phaseline.url.replace("http", "ws")}/api/v1/analyze/{analysis}/stream");
              const say = (text) => log.append(Object.assign(document.createElement("li"), {{ textContent: text }}));
              socket.onmessage = ({{ data }}) => {{
                const message = JSON.parse(data);
                switch (message.type) {{
                  case "progress": return say(message.progress + " " + message.phase);
                  case "complete": return say("complete " + message.results.decision.action);
                  case "error": return say("error " + message.message);
                }}
              }};
              socket.onclose = ({{ code }}) => say("closed " + code);
            </script>""",
        )

    async with aiohttp.ClientSession() as session:
        asked = {"team_id": 1, "time_limit_s": 4}
        async with session.post(f"{phaseline.url}/api/v1/analyze", json=asked) as made:
            analysis = json.loads(await made.text())["analysis_id"]
    app = web.Application()
    app.add_routes([web.get("/", document)])
    async with TestServer(app) as elsewhere, asyncio.timeout(120):
        await page.goto(str(elsewhere.make_url("/")))
        await page.get_by_text("closed 1000").wait_for(timeout=BOUND_MS)
        lines = await page.locator("li").all_text_contents()
    assert lines[-2].startswith("complete ")
    assert any(line.endswith("analyzing_transfers") for line in lines)

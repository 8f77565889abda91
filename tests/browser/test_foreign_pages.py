"""Pages of others, opened in a browser that is logged in here: what they try reads nothing and changes nothing."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, BrowserContext, Page, expect

from events.acts import By
from phaseline import database
from phaseline.settings import Settings
from tests.browser.browsing import chromium
from tests.browser.watching import at_least
from tests.installation import Installation, embedded, running
from tests.integration.conftest import ENVIRONMENT

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

EVIL = "evil.example"
# Everything a page can send without being asked, to the address and with the cookies of another. Told: what it got to see.
TRY = """async ([url, job]) => {
  const wsUrl = url.replace("http", "ws");
  const socket = (path, protocols) => new Promise((done) => {
    const opened = new WebSocket(wsUrl + path, protocols);
    let heard = 0;
    opened.onopen = () => opened.send(JSON.stringify({ op: "subscribe", job_id: job }));
    opened.onmessage = () => { heard += 1; if (heard > 2) opened.close(); };
    opened.onclose = ({ code }) => done([heard > 0, code]);
  });
  const asked = async (path, options) => {
    try {
      const answer = await fetch(url + path, { credentials: "include", ...options });
      return answer.type === "opaque" ? "opaque" : answer.status;
    } catch { return "refused"; }
  };
  const source = (path) => new Promise((done) => {
    const opened = new EventSource(url + path, { withCredentials: true });
    opened.onmessage = () => { opened.close(); done(true); };
    opened.onerror = () => { opened.close(); done(false); };
  });
  const body = JSON.stringify({ engine: "countdown", params: { steps: 1, step_s: 0 } });
  const simple = { method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" } };
  return {
    sockets: await Promise.all([
      socket(`/api/v1/jobs/${job}/stream`), socket("/api/v1/stream"), socket(`/api/v1/jobs/${job}/stream`, ["phaseline.v1"]),
    ]),
    events: await source(`/api/v1/jobs/${job}/events`),
    read: [await asked(`/api/v1/jobs/${job}`), await asked("/api/v1/session"), await asked("/api/v1/jobs", { mode: "no-cors" })],
    sent: [
      await asked("/api/v1/jobs", { method: "POST", headers: { "Content-Type": "application/json" }, body }),
      await asked("/api/v1/jobs", { ...simple, body }),
      await asked(`/api/v1/jobs/${job}/cancel`, { ...simple, body: "{}" }),
      await asked("/api/v1/session", { ...simple, body: JSON.stringify({ key: "mine" }) }),
      await asked("/api/v1/session", { method: "DELETE" }),
    ],
  };
}"""
# A form is the one thing that may even be answered in the window.
FORM = """([url]) => {
  const form = Object.assign(document.createElement("form"), { method: "post", action: `${url}/api/v1/jobs`, enctype: "text/plain" });
  form.append(Object.assign(document.createElement("input"), {
    name: '{"engine":"countdown","params":{"steps":1,"step_s":0},"tags":["', value: '"]}',
  }));
  document.body.append(form);
  form.submit();
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """It finds the foreign site on this machine, so that nothing but the gateway stands in its way."""
    async with chromium(f"--host-resolver-rules=MAP {EVIL} 127.0.0.1") as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phaseline(folder: Path) -> AsyncIterator[Installation]:
    async with running(embedded(folder, PHASELINE_AUTH="keys", **ENVIRONMENT)) as made:
        yield made


class Operator:
    """Who looks from outside whether anything changed."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self, path: str) -> Any:
        async with self._session.get(self._url + path) as answer:
            return await answer.json()

    async def submit(self) -> str:
        body = {"engine": "countdown", "params": {"steps": 1000, "step_s": 0.1}}
        async with self._session.post(f"{self._url}/api/v1/jobs", json=body) as answer:
            return str((await answer.json())["id"])

    async def refused(self) -> float:
        """Answers that were refusals so far."""
        async with self._session.get(f"{self._url}/metrics") as answer:
            found = re.search(r'phaseline_http_answers_total\{status="4xx"\} (\S+)', await answer.text())
        assert found is not None
        return float(found[1])


@pytest_asyncio.fixture(loop_scope="module")
async def text(folder: Path) -> str:
    settings = Settings(data_dir=folder, database_url=None)
    return (await database.create_key(settings, "default", "", ["admin"], None, By("user:test")))[1]


@pytest_asyncio.fixture(loop_scope="module")
async def operator(phaseline: Installation, text: str) -> AsyncIterator[Operator]:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {text}"}) as session:
        yield Operator(session, phaseline.url)


@pytest_asyncio.fixture(loop_scope="module")
async def logged_in(browser: Browser, phaseline: Installation, text: str) -> AsyncIterator[BrowserContext]:
    """A browser whose pages of this gateway are answered."""
    context = await browser.new_context(base_url=phaseline.url)
    page = await context.new_page()
    await page.goto("/jobs")
    await page.get_by_label("API key").fill(text)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("button", name="Log out")).to_be_visible()
    yield context
    await context.close()


async def nothing_works(page: Page, phaseline: Installation, operator: Operator, job_id: str) -> dict[str, Any]:
    """Tries everything from the page that is open."""
    before = (await operator.get("/api/v1/jobs"))["jobs"], await operator.refused()
    found: dict[str, Any] = await page.evaluate(TRY, [phaseline.url, job_id])
    assert [heard for heard, _ in found["sockets"]] == [False] * 3, found
    assert found["events"] is False
    assert set(found["read"]) <= {"refused", "opaque"}, found  # nothing a script can look into
    assert set(found["sent"]) <= {"refused", "opaque"}, found
    async with page.expect_navigation():
        await page.evaluate(FORM, [phaseline.url])
    after = await operator.get("/api/v1/jobs")
    assert [job["id"] for job in after["jobs"]] == [job["id"] for job in before[0]]
    assert after["jobs"][0]["status"] in ("queued", "running")
    assert await operator.refused() - before[1] >= 6  # it was us who refused, not only the browser
    return found


@pytest_asyncio.fixture(loop_scope="module")
async def elsewhere() -> AsyncIterator[tuple[int, list[str]]]:
    """The port of a server with another's page, and the cookies it was sent."""
    cookies: list[str] = []

    async def document(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie", ""))
        return web.Response(content_type="text/html", text="<!doctype html><title>other</title>")

    app = web.Application()
    app.router.add_get("/", document)
    async with TestServer(app, host="127.0.0.1") as server:
        assert server.port is not None
        yield server.port, cookies


async def test_a_page_of_another_port_of_this_machine_does_nothing_with_the_login(
    logged_in: BrowserContext, phaseline: Installation, operator: Operator, elsewhere: tuple[int, list[str]]
):
    """The same site to a browser, so that it sends the cookie along."""
    port, cookies = elsewhere
    job_id = await operator.submit()
    page = await logged_in.new_page()
    await page.goto(f"http://127.0.0.1:{port}/")
    found = await nothing_works(page, phaseline, operator, job_id)
    assert "phaseline_key=" in cookies[0]  # or this would show nothing
    assert [code for _, code in found["sockets"]] == [4401] * 3  # asked for a key, and had none to say
    own = await logged_in.new_page()
    await own.goto(f"/jobs/{job_id}")
    await at_least(own, 3)  # the login is as good as before


async def test_a_page_of_a_foreign_site_opens_nothing_and_changes_nothing(
    logged_in: BrowserContext, phaseline: Installation, operator: Operator, elsewhere: tuple[int, list[str]]
):
    port, cookies = elsewhere
    job_id = await operator.submit()
    page = await logged_in.new_page()
    await page.goto(f"http://{EVIL}:{port}/")
    found = await nothing_works(page, phaseline, operator, job_id)
    assert cookies == [""]
    assert [code for _, code in found["sockets"]] == [1006] * 3  # before the upgrade


async def test_what_a_foreign_page_tries_works_from_a_page_of_the_gateway(
    logged_in: BrowserContext, phaseline: Installation, operator: Operator
):
    """Or the tests above would show nothing."""
    job_id = await operator.submit()
    page = await logged_in.new_page()
    await page.goto("/jobs")
    found = await page.evaluate(TRY, [phaseline.url, job_id])
    assert [heard for heard, _ in found["sockets"]] == [True] * 3, found
    assert (found["events"], found["read"][:2], found["sent"][0]) == (True, [200, 200], 202)

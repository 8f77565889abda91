"""The pages on gateways and a worker that are processes of their own, on PostgreSQL and RabbitMQ."""

import asyncio
from collections.abc import AsyncIterator
from itertools import groupby

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from tests.browser.watching import BOUND_MS, at_least, complete, sequences
from tests.installation import Api, Installation, Viewer, api, on_servers, running
from tests.integration.conftest import ENVIRONMENT
from tests.ports import free_port
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

MOVES_ON = 4  # events that come while the browser's own gateway is dead
WATCH_CONNECTION = """() => {
  const light = document.getElementById("connection");
  window.states = [light.dataset.state];
  new MutationObserver(() => states.push(light.dataset.state)).observe(light, { attributeFilter: ["data-state"] });
}"""
# What it hears goes into the document, where a test can wait for it: the pages' policy allows no code made from text.
EVENT_SOURCE = """(path) => {
  const mark = (name, value) => document.body.append(Object.assign(document.createElement("i"), { id: `${name}-${value}` }));
  window.heard = [];
  let opened = 0;
  const source = new EventSource(path);
  source.onopen = () => mark("opened", (opened += 1));
  source.onerror = () => mark(source.readyState === EventSource.CLOSED ? "closed" : "waiting", opened);
  source.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (!frame.actor) return; // a frame about the stream, not an event
    heard.push([frame.seq, frame.type]);
    mark("heard", frame.seq);
  };
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phaseline(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    """The pages come from `gateway`, which dies; `gateway.2` tells the tests what goes on meanwhile."""
    settings = await postgres_settings(postgres, tmp_path_factory.mktemp("gateways"))
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    made = on_servers(str(settings.database_url), rabbit_url, **ENVIRONMENT)
    made.configure("gateway.2", PHASELINE_PORT=str(free_port()))
    async with running(made, "gateway", "gateway.2", "worker"):
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def http(phaseline: Installation) -> AsyncIterator[Api]:
    async with api(phaseline.url) as http:
        yield http


async def moved_on(phaseline: Installation, job_id: str, seq: int) -> None:
    """Returns once the log holds this sequence, as another gateway tells."""
    beside = Viewer(f"http://127.0.0.1:{phaseline.setting('gateway.2', 'PHASELINE_PORT')}", job_id)
    await beside.follow(until=seq)


async def marked(page: Page, name: str) -> None:
    """Returns once `EVENT_SOURCE` has said so."""
    await page.locator(f"#{name}").first.wait_for(state="attached", timeout=BOUND_MS)


async def test_a_job_followed_in_a_page_goes_on_while_its_gateway_is_killed_and_started_again(
    page: Page, phaseline: Installation, http: Api
):
    job_id = await http.submit("countdown", {"steps": 400, "step_s": 0.25})
    await page.goto(f"/jobs/{job_id}")
    await at_least(page, 5)
    await expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=BOUND_MS)
    await page.evaluate(WATCH_CONNECTION)
    await phaseline.kill("gateway")
    await expect(page.locator("#connection")).to_have_attribute("data-state", "waiting", timeout=BOUND_MS)
    seen = await sequences(page)
    await moved_on(phaseline, job_id, seen[-1] + MOVES_ON)
    await phaseline.start("gateway")
    await at_least(page, seen[-1] + MOVES_ON)
    await expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=BOUND_MS)
    states = [state for state, _ in groupby(await page.evaluate("states")) if state != "catching_up"]
    assert states == ["live", "waiting", "live"]
    await page.get_by_role("button", name="Cancel").click()
    await complete(page)
    job = await http.get(f"/api/v1/jobs/{job_id}")
    assert await sequences(page) == list(range(1, job["seq"] + 1))
    assert (job["status"], job["attempt"], job["losses"]) == ("cancelled", 1, 0)  # the worker noticed nothing


async def test_the_live_page_shows_the_gateway_that_answers_and_the_one_that_takes_its_place(
    page: Page, phaseline: Installation, http: Api
):
    def tile(name: str) -> Locator:
        return page.locator(".tile", has=page.get_by_text(name, exact=True)).locator("b")

    job_id = await http.submit("countdown", {"steps": 400, "step_s": 0.25})
    await page.goto("/live")
    first = await http.get("/api/v1/gateway")
    await expect(page.get_by_role("heading", name=f"Gateway {first['id'][-8:]}")).to_be_visible()
    await expect(tile("viewers")).to_have_text("0")
    sampled = f"{first['lag']['samples']} events sampled in five minutes"
    await expect(page.locator(".legend").first).to_contain_text(sampled)
    beside = await page.context.new_page()
    await beside.goto(f"/jobs/{job_id}")
    await expect(tile("viewers")).to_have_text("1", timeout=BOUND_MS)
    await expect(page.locator(".legend").first).not_to_contain_text(sampled, timeout=BOUND_MS)
    await expect(tile("lag, half within")).to_contain_text("s")
    await phaseline.kill("gateway")
    await expect(page.locator("#connection")).to_have_attribute("data-state", "waiting", timeout=BOUND_MS)
    await phaseline.start("gateway")
    second = await http.get("/api/v1/gateway")
    await expect(page.get_by_role("heading", name=f"Gateway {second['id'][-8:]}")).to_be_visible(timeout=BOUND_MS)
    await expect(page.locator("main")).to_contain_text("2 gateways answered in the last minute.")
    await http.post(f"/api/v1/jobs/{job_id}/cancel", {}, 200)


async def test_a_browsers_own_eventsource_hears_every_event_once_across_a_killed_gateway_and_stops_at_the_end(
    page: Page, phaseline: Installation, http: Api
):
    job_id = await http.submit("countdown", {"steps": 400, "step_s": 0.25})
    await page.goto("/workers")
    await page.evaluate(EVENT_SOURCE, f"/api/v1/jobs/{job_id}/events")
    await marked(page, "heard-5")
    await phaseline.kill("gateway")
    await marked(page, "waiting-1")
    seen = (await page.evaluate("heard"))[-1][0]
    await moved_on(phaseline, job_id, seen + MOVES_ON)
    await phaseline.start("gateway")
    await marked(page, "opened-2")
    await marked(page, f"heard-{seen + MOVES_ON}")
    await http.post(f"/api/v1/jobs/{job_id}/cancel", {}, 200)
    await marked(page, "closed-2")
    job = await http.get(f"/api/v1/jobs/{job_id}")
    heard = await page.evaluate("heard")
    assert [seq for seq, _ in heard] == list(range(1, job["seq"] + 1))
    assert heard[-1][1] == "cancelled"

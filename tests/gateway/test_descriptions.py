"""The API's descriptions are valid, complete, and true: what is answered and sent is what they say."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from events.catalog import RECORDED_TYPES, Log
from gateway.asyncapi import asyncapi
from gateway.openapi import Description
from gateway.pages import Pages
from tests.gateway.driving import Driver, Gateway
from tests.gateway.test_full import finished, running
from tests.gateway.test_many import a_socket

GOLDEN = Path(__file__).parents[1] / "golden"
OPENAPI = Description("1.2.3").document()
ASYNCAPI = asyncapi("1.2.3")


def conforms(value: Any, document: dict[str, Any], name: str) -> None:
    """Holds a value against a named schema of a description."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


def test_the_description_of_the_api_is_openapi_3_1():
    OpenAPIV31SpecValidator(OPENAPI).validate()


async def test_every_route_but_the_pages_files_is_described_and_no_other(gateway: Gateway):
    pages = {route.path for route in Pages().routes()} - {"/"}
    routes = {
        (resource.canonical, route.method.lower())
        for resource in gateway.app.router.resources()
        for route in resource
        if route.method != "HEAD" and resource.canonical not in pages
    }
    described = {(path, method) for path, methods in OPENAPI["paths"].items() for method in methods}
    assert described == routes


def test_each_call_has_a_name_of_its_own():
    names = [call["operationId"] for methods in OPENAPI["paths"].values() for call in methods.values()]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


async def test_descriptions_are_served_as_they_are(gateway: Gateway):
    served = (await gateway.get("/openapi.json")).json
    assert served["info"].pop("version")
    assert served == OPENAPI | {"info": {name: at for name, at in OPENAPI["info"].items() if name != "version"}}
    assert (await gateway.get("/asyncapi.json")).json["channels"] == ASYNCAPI["channels"]


async def test_what_is_answered_is_what_the_schemas_say(gateway: Gateway, driver: Driver):
    done = await finished(driver)
    attempt = await driver.started()
    await attempt.fail()
    analysis = (await gateway.post("/api/v1/analyze", {"team_id": 7})).json
    conforms(analysis, OPENAPI, "AnalysisMade")
    bulk = {"action": "cancel", "q": "status:queued"}
    counted = (await gateway.post("/api/v1/bulk", bulk)).json
    conforms(counted, OPENAPI, "BulkCounted")
    conforms((await gateway.post("/api/v1/bulk", bulk | {"confirm": counted["confirm"]})).json, OPENAPI, "BulkDone")
    for path, name in (
        (f"/api/v1/jobs/{done}", "Job"),
        (f"/api/v1/jobs/{attempt.job_id}", "Job"),
        (f"/api/v1/analyze/{analysis['analysis_id']}", "Analysis"),
        ("/api/v1/jobs", "JobPage"),
        (f"/api/v1/jobs/{done}/events", "EventPage"),
        ("/api/v1/events", "FeedPage"),
        ("/api/v1/engines", "Engines"),
        ("/api/v1/workers", "Workers"),
        ("/api/v1/stats", "Stats"),
        ("/api/v1/gateway", "GatewayState"),
        ("/readyz", "Ready"),
        ("/healthz", "Alive"),
        ("/api/v1/jobs/nonsense", "Problem"),
        ("/api/v1/jobs?limit=0", "Problem"),
    ):
        conforms((await gateway.get(path)).json, OPENAPI, name)


async def test_every_recorded_event_is_what_its_schema_says():
    for name in RECORDED_TYPES:
        event = json.loads(json.loads((GOLDEN / f"{name}.v1.json").read_text())["line"])
        conforms(event, OPENAPI, f"event_{name}")
        conforms(event, ASYNCAPI, "Event")
    with pytest.raises(jsonschema.ValidationError):
        conforms({"job_id": "x", "type": "log"}, OPENAPI, "event_log")


async def test_every_frame_that_is_sent_is_one_of_the_channels_messages(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    await attempt.say(Log(level="info", message="x"))
    async with (
        a_socket(gateway, "?heartbeat=2") as many,
        gateway.stream(f"/api/v1/analyze/{attempt.job_id}/stream") as classic,
        gateway.stream(f"/api/v1/jobs/{attempt.job_id}/stream?batch=1&after=99") as job,
    ):
        await many.say("subscribe", feed=True)
        await many.subscribe(attempt.job_id, attempt.job_id)
        await many.until("heartbeat", "feed", attempt.job_id)
        await attempt.finish({"n": 1})
        await many.until("end", attempt.job_id)
        await classic.rest()
        await job.rest()
    for channel, stream in (("many", many.stream), ("analysis", classic), ("job", job)):
        names = [
            ASYNCAPI["components"]["messages"][name]["payload"]["$ref"].rsplit("/", 1)[1]
            for name in ASYNCAPI["channels"][channel]["messages"]
        ]
        any_of = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}
        validator = jsonschema.Draft202012Validator(any_of | {"components": ASYNCAPI["components"]})
        assert len(stream.text) > 3
        for text in stream.text:
            validator.validate(json.loads(text))


class Page(HTMLParser):
    """What a page asks a browser to load, and whether its links lead somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: set[str] = set()
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "link", "img", "iframe", "object", "form"} or "src" in given:
            self.loads.append(tag)
        self.ids.add(given.get("id") or "")
        if link := given.get("href"):
            self.links.add(link)


async def test_the_page_loads_nothing_and_its_policy_allows_nothing(gateway: Gateway):
    answer = await gateway.get("/docs")
    page = Page()
    page.feed(answer.body.decode())
    assert (answer.status, page.loads) == (200, [])
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert {link for link in page.links if not link.startswith("#")} == {"/openapi.json", "/asyncapi.json"}
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    text = answer.body.decode()
    for path in OPENAPI["paths"]:
        assert path in text
    assert len(answer.body) < 140_000

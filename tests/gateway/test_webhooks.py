"""A job names where its end is told; what may not be is refused by name, and what is owed is shown."""

from typing import Any

import jsonschema
import pytest

from events.acts import By
from events.webhook_url import Rules, networks
from events.webhooks import Endpoint
from gateway.openapi import Description
from tests.gateway.driving import Gateway, Storage

URL = "https://example.com/hook"


@pytest.fixture
async def settings(storage: Storage) -> dict[str, Any]:
    """A gateway with webhooks, which may go to one private network."""
    return {"webhooks": storage.log, "webhook_rules": Rules(networks(["10.1.0.0/16"]))}


async def sign(gateway: Gateway) -> None:
    log: Any = gateway.storage.log
    await log.keep_endpoint(Endpoint("default", "whsec_b2xk", None, None, None, 0), By("user:test"))


def a_job(webhook: Any) -> dict[str, Any]:
    return {"engine": "fpl", "params": {"team_id": 7}, "webhook": webhook}


@pytest.mark.parametrize(
    "url", ["http://example.com/", "https://127.0.0.1/", "https://10.2.0.1/", "x", "", 7, "https://u@example.com/"]
)
async def test_a_url_no_webhook_may_go_to_is_refused_by_name_and_makes_no_job(gateway: Gateway, url: Any):
    await sign(gateway)
    refused = await gateway.post("/api/v1/jobs", a_job(url))
    assert (refused.status, [one["field"] for one in refused.json["errors"]]) == (422, ["webhook"])
    assert (await gateway.get("/api/v1/jobs")).json["jobs"] == []


async def test_without_a_secret_to_sign_with_no_job_may_name_one(gateway: Gateway):
    refused = await gateway.post("/api/v1/jobs", a_job(URL))
    assert (refused.status, refused.json["errors"][0]["field"]) == (422, "webhook")
    assert "phaseline webhooks set" in refused.json["detail"]


async def test_what_a_job_owes_is_shown_as_described(gateway: Gateway):
    await sign(gateway)
    made = (await gateway.post("/api/v1/jobs", a_job("HTTPS://Example.com"))).json
    assert made["webhook"] == "https://example.com/"
    assert (await gateway.get(f"/api/v1/jobs/{made['id']}/deliveries")).json == {"deliveries": []}
    await gateway.post(f"/api/v1/jobs/{made['id']}/cancel", {})
    shown = (await gateway.get(f"/api/v1/jobs/{made['id']}/deliveries")).json
    document = Description("1").document()
    schema = {"$ref": "#/components/schemas/Deliveries", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(shown)
    [owed] = shown["deliveries"]
    assert (owed["id"], owed["state"], owed["attempts"]) == (f"{made['id']}.2", "pending", [])
    again = (await gateway.post(f"/api/v1/jobs/{made['id']}/rerun", {})).json
    assert again["webhook"] == "https://example.com/"


async def test_an_unknown_job_owes_nothing_that_is_shown(gateway: Gateway):
    assert (await gateway.get("/api/v1/jobs/01a20ca3-8f44-71e6-954e-9ff94174bd64/deliveries")).status == 404

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
    for path, body in (("jobs", a_job(url)), ("analyze", {"team_id": 7, "webhook": url})):
        refused = await gateway.post(f"/api/v1/{path}", body)
        assert (refused.status, [one["field"] for one in refused.json["errors"]]) == (422, ["webhook"])
    assert (await gateway.get("/api/v1/jobs")).json["jobs"] == []


async def test_without_a_secret_to_sign_with_no_job_may_name_one(gateway: Gateway):
    for path, body in (("jobs", a_job(URL)), ("analyze", {"team_id": 7, "webhook": URL})):
        refused = await gateway.post(f"/api/v1/{path}", body)
        assert (refused.status, refused.json["errors"][0]["field"]) == (422, "webhook")
        assert "phaseline webhooks set" in refused.json["detail"]


async def test_an_analysis_owes_a_webhook_as_any_job(gateway: Gateway):
    await sign(gateway)
    body, key = {"team_id": 7, "webhook": "HTTPS://Example.com"}, {"Idempotency-Key": "weekly"}
    made = await gateway.post("/api/v1/analyze", body, headers=key)
    job_id = made.json["analysis_id"]
    assert made.json == {"analysis_id": job_id, "status": "queued", "stream_url": f"/api/v1/analyze/{job_id}/stream"}
    job = (await gateway.get(f"/api/v1/jobs/{job_id}")).json
    assert (job["webhook"], "webhook" in job["params"]) == ("https://example.com/", False)
    assert (await gateway.post("/api/v1/analyze", body, headers=key)).json["analysis_id"] == job_id
    other = await gateway.post("/api/v1/analyze", {"team_id": 7}, headers=key)  # the webhook is of what was asked
    assert other.status == 422
    await gateway.post(f"/api/v1/jobs/{job_id}/cancel", {})
    [owed] = (await gateway.get(f"/api/v1/jobs/{job_id}/deliveries")).json["deliveries"]
    assert owed["state"] == "pending"
    plain = (await gateway.post("/api/v1/analyze", {"team_id": 7, "webhook": None})).json["analysis_id"]
    assert "webhook" not in (await gateway.get(f"/api/v1/jobs/{plain}")).json


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

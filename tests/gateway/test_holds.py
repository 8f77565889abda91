"""Legal holds over HTTP."""

from typing import Any

import jsonschema
import pytest

from gateway.openapi import Description
from tests.gateway.driving import Driver, Gateway, Storage


@pytest.fixture
async def settings(storage: Storage) -> dict[str, Any]:
    return {"holds": storage.log}


async def test_a_job_is_held_and_let_go_and_every_act_is_shown(gateway: Gateway, driver: Driver):
    path = f"/api/v1/jobs/{await driver.submit()}/hold"
    assert (await gateway.get(path)).json == {"held": False, "acts": []}
    assert (await gateway.post(path, {"reason": "case 4711"})).json["held"] is True
    told = (await gateway.post(path, {"reason": "closed", "held": False})).json
    jsonschema.Draft202012Validator(
        {"$ref": "#/components/schemas/Hold", "components": Description("1").document()["components"]}
    ).validate(told)
    assert told["held"] is False
    assert [(act["held"], act["reason"], act["actor"]) for act in told["acts"]] == [
        (True, "case 4711", "user:anonymous"),
        (False, "closed", "user:anonymous"),
    ]
    assert told["acts"][0]["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("body", "field"), [({}, "reason"), ({"reason": ""}, "reason"), ({"reason": "x", "held": 1}, "held")]
)
async def test_a_hold_without_a_reason_is_none(gateway: Gateway, driver: Driver, body: dict[str, Any], field: str):
    path = f"/api/v1/jobs/{await driver.submit()}/hold"
    refused = await gateway.post(path, body)
    assert (refused.status, refused.json["errors"][0]["field"]) == (422, field)
    assert (await gateway.get(path)).json["acts"] == []

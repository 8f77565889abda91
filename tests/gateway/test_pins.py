"""Pins over HTTP."""

from typing import Any

import jsonschema
import pytest

from gateway.openapi import Description
from tests.gateway.driving import Driver, Gateway, Storage


@pytest.fixture
async def settings(storage: Storage) -> dict[str, Any]:
    return {"retention": storage.log}


async def test_a_job_is_pinned_and_let_go(gateway: Gateway, driver: Driver):
    path = f"/api/v1/jobs/{await driver.submit()}/pin"
    nobody = {"pinned": False, "at": None, "actor": None, "address": None, "reason": None}
    assert (await gateway.get(path)).json == nobody
    told = (await gateway.post(path, {"reason": "the baseline"})).json
    jsonschema.Draft202012Validator(
        {"$ref": "#/components/schemas/Pin", "components": Description("1").document()["components"]}
    ).validate(told)
    assert (told["pinned"], told["actor"], told["address"], told["reason"]) == (
        True, "user:anonymous", "127.0.0.1", "the baseline",
    )  # fmt: skip
    assert (await gateway.get(path)).json == told
    assert (await gateway.post(path, {"reason": "replaced", "pinned": False})).json == nobody


@pytest.mark.parametrize(
    ("body", "field"), [({}, "reason"), ({"reason": ""}, "reason"), ({"reason": "x", "pinned": 1}, "pinned")]
)
async def test_a_pin_without_a_reason_is_none(gateway: Gateway, driver: Driver, body: dict[str, Any], field: str):
    path = f"/api/v1/jobs/{await driver.submit()}/pin"
    refused = await gateway.post(path, body)
    assert (refused.status, refused.json["errors"][0]["field"]) == (422, field)
    assert (await gateway.get(path)).json["pinned"] is False

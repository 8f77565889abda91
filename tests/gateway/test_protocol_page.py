"""docs/protocol.md names everything there is, so that a client can be written from it."""

import re
from pathlib import Path

from events.catalog import RECORDED_TYPES
from tests.gateway.driving import Gateway

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def test_every_event_type_is_described_with_its_fields():
    for name, cls in RECORDED_TYPES.items():
        (row,) = re.findall(rf"^\| `{name}` \| (.*) \|.*\|$", PAGE, re.MULTILINE)
        fields = [field for field in cls.model_fields if field != "type"]
        assert [field for field in fields if f"`{field}`" not in row] == [], name


async def test_every_route_is_described(gateway: Gateway):
    routes = {
        f"{route.method} {resource.canonical.replace('{job_id}', '{id}')}"
        for resource in gateway.app.router.resources()
        for route in resource
        if route.method != "HEAD"
    }
    assert [route for route in sorted(routes) if f"`{route}`" not in PAGE] == []


async def test_every_field_of_a_job_is_described(gateway: Gateway):
    job = (await gateway.post("/api/v1/jobs", {"engine": "fpl", "params": {"team_id": 7}})).json
    assert [field for field in job if f"`{field}`" not in PAGE] == []

"""Events that a person causes say from where; only a trusted proxy is believed."""

from typing import Any

import pytest

from gateway.addresses import networks
from tests.gateway.driving import Driver, Gateway

NEW = {"engine": "fpl", "params": {"team_id": 7}}


async def submitted_from(gateway: Gateway, *said: str) -> str:
    headers = [("X-Forwarded-For", text) for text in said]
    async with gateway.session.post(gateway.server.make_url("/api/v1/jobs"), json=NEW, headers=headers) as answer:
        job = await answer.json()
    address = (await gateway.get(f"/api/v1/jobs/{job['id']}/events")).json["events"][0]["address"]
    return str(address)


async def test_what_a_person_does_to_a_job_says_from_where_and_why(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    url = f"/api/v1/jobs/{attempt.job_id}"
    await gateway.post(f"{url}/cancel", {"reason": "late", "grace_s": 5})
    await gateway.post(f"{url}/cancel", {"mode": "force", "reason": "now"})
    await gateway.post(f"{url}/retry", {"reason": "after all"})
    await gateway.post(f"{url}/cancel", {"reason": "no"})
    events = (await gateway.get(f"{url}/events")).json["events"]
    caused = [(e["type"], e["actor"], e.get("address"), e["reason"]) for e in events if "reason" in e]
    who = ("user:anonymous", "127.0.0.1")
    assert (caused[0], caused[-2], caused[-1]) == (
        ("cancel_requested", *who, "late"),
        ("reopened", *who, "after all"),
        ("cancelled", *who, "no"),
    )
    assert {address for _, _, address, _ in caused} == {"127.0.0.1"}


async def test_a_header_of_nobody_trusted_is_ignored(gateway: Gateway):
    assert await submitted_from(gateway, "203.0.113.9") == "127.0.0.1"


class TestBehindAProxy:
    @pytest.fixture
    async def settings(self) -> dict[str, Any]:
        return {"trusted_proxies": networks(("127.0.0.1", "10.0.0.0/8", "fd00::/8"))}

    @pytest.mark.parametrize(
        ("said", "address"),
        [
            ((), "127.0.0.1"),
            (("203.0.113.9",), "203.0.113.9"),
            (("198.51.100.1, 203.0.113.9",), "203.0.113.9"),  # the first was written by whoever asked
            (("198.51.100.1, 203.0.113.9, 10.1.2.3",), "203.0.113.9"),
            (("198.51.100.1", "203.0.113.9, 10.1.2.3"), "203.0.113.9"),
            (("203.0.113.9, unknown",), "127.0.0.1"),
            (("<script>, 10.1.2.3",), "10.1.2.3"),
            (("2001:db8::1, fd00::7",), "2001:db8::1"),
            (("::ffff:203.0.113.9",), "203.0.113.9"),
            (("203.0.113.9:4711",), "127.0.0.1"),
            ((", ".join(["198.51.100.1", *["10.0.0.1"] * 50]),), "10.0.0.1"),
        ],
    )
    async def test_the_last_address_that_is_no_trusted_proxy_counts(
        self, gateway: Gateway, said: tuple[str, ...], address: str
    ):
        assert await submitted_from(gateway, *said) == address


def test_a_wrong_network_is_named():
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        networks(("10.0.0.1/8",))

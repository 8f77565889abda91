"""Which URLs a job may name, and which addresses are connected to."""

from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from events.webhook_url import Rules, lane_of, networks
from events.webhooks import BACKOFF_MAX_S, Endpoint, backoff_s

HERE = Rules(networks(["10.1.2.0/24", "fd00::5"]))


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM:8443/Hook?a=B", "https://example.com:8443/Hook?a=B"),
        ("https://8.8.8.8/x", "https://8.8.8.8/x"),
        ("https://10.1.2.3/x", "https://10.1.2.3/x"),
        ("https://[2606:4700::1111]/", "https://[2606:4700::1111]/"),
    ],
)
def test_a_url_that_may_be_is_stored_as_it_is_sent_to(url: str, stored: str):
    assert HERE.checked(url) == stored


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "//example.com/", "example.com/hook", "https://", "https:///x",
        "https://user@example.com/", "https://u:p@example.com/", "https://example.com/#x", "https://example.com/#",
        "https://example.com:0/", "https://example.com:99999/", "https://example.com:x/", "https://exämple.com/",
        "https://example.com/a b", "https://example.com/\n", "https://example.com\\@evil/", "https://[::1",
        "https://127.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data", "https://[::1]/",
        "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://[fe80::1]/",
        "https://0/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/",
        "https://017700000001/", "https://100.100.100.200/", "https://168.63.129.16/", "https://10.1.3.1/",
        "https://" + "a" * 2048,
    ],
)  # fmt: skip
def test_a_url_that_may_not_be_is_refused(url: str):
    with pytest.raises(ValueError, match=r".+"):
        HERE.checked(url)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("10.1.2.9", True), ("::ffff:10.1.2.9", True), ("fd00::5", True),
        ("127.0.0.1", False), ("::1", False), ("0.0.0.0", False), ("::", False), ("10.1.3.9", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False), ("fe80::1%eth0", False),
        ("fd00:ec2::254", False), ("224.0.0.1", False), ("ff02::1", False), ("255.255.255.255", False),
        ("100.64.0.1", False), ("::ffff:127.0.0.1", False), ("64:ff9b::a00:1", False), ("2002:a00:1::", False),
        ("2001:0:1::1", False), ("fec0::1", False), ("192.0.0.192", False), ("168.63.129.16", False),
        ("name", False), ("", False),
    ],
)  # fmt: skip
def test_only_public_addresses_and_those_named_are_connected_to(address: str, allowed: bool):
    assert HERE.allows(address) is allowed


def test_a_lane_is_a_tenant_and_a_host():
    assert lane_of("acme", "https://example.com:8443/hook?x=https://other/") == "acme https://example.com:8443"
    assert lane_of("acme", "http://h/") == "acme http://h"


def test_waits_grow_fourfold_to_half_a_day_and_spread():
    assert [backoff_s(n, 5.0, 0.5) for n in range(1, 5)] == pytest.approx([5, 20, 80, 320])
    assert backoff_s(40, 5.0, 0.5) == pytest.approx(BACKOFF_MAX_S)
    assert (backoff_s(1, 5.0, 0.0), backoff_s(1, 5.0, 1.0)) == pytest.approx((4.0, 6.0))


def test_after_a_rotation_both_secrets_sign_for_a_day():
    before = Endpoint("acme", "whsec_b2xk", None, None, None, 0)
    after = before.rotated(1000)
    assert after.secrets_at(1001) == (after.secret, before.secret)
    assert after.secrets_at(1000 + 24 * 3600 * 1000) == (after.secret,)
    assert after.secret != before.secret


def test_the_library_signs_as_the_standard_says():
    # The example of the specification, https://github.com/standard-webhooks/standard-webhooks.
    signed = Webhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").sign(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", datetime.fromtimestamp(1614265330, UTC), '{"test": 2432232314}'
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

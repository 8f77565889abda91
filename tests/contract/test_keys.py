"""What the keeper of API keys promises, on SQLite and on each PostgreSQL."""

from dataclasses import replace
from typing import Any

import pytest

from events.acts import By
from events.keys import ApiKey, draw, token_of
from events.log import Log
from events.passes import FIRST_USE_MS, LAST_MS, Pass, digest_of, drawn

pytestmark = pytest.mark.parametrize("store", ["sqlite", "postgres", "postgres_18"], indirect=True)

BY = By("user:ada", "203.0.113.9", "for the tests")


@pytest.fixture
def keys(log: Log) -> Any:
    """A log keeps keys too."""
    return log


def a_key(**fields: Any) -> ApiKey:
    asked: dict[str, Any] = {
        "tenant": "acme",
        "name": "Zürich 東京",
        "scopes": ("read", "submit"),
        "now_ms": 1000,
    } | fields
    return draw(**asked)[0]


async def test_a_key_comes_back_as_it_was_made_and_is_the_first_there_was(keys: Any):
    assert not await keys.has_keys()
    key, eternal = a_key(expires_at=5000), a_key(now_ms=2000)
    for each in (eternal, key):
        await keys.add_key(each, BY)
    assert await keys.find_keys([key.id, "unknown", eternal.id]) == {key.id: key, eternal.id: eternal}
    assert await keys.keys() == await keys.keys("acme") == [key, eternal]
    assert await keys.keys("other") == []
    assert await keys.has_keys()


async def test_a_revoked_key_stays_revoked_since_then(keys: Any):
    key, other = a_key(), a_key()
    await keys.add_key(key, BY)
    await keys.add_key(other, BY)
    assert await keys.revoke_key(key.id, BY)
    [revoked] = (await keys.find_keys([key.id])).values()
    assert revoked.over(0) == "revoked"
    assert await keys.revoke_key(key.id, BY)
    assert (await keys.find_keys([key.id]))[key.id].revoked_at == revoked.revoked_at
    assert not await keys.revoke_key("unknown", BY)
    assert (await keys.find_keys([other.id]))[other.id].over(0) is None
    assert await keys.has_keys()  # a door once closed stays closed


async def test_use_is_noted_for_those_that_were_used(keys: Any):
    key, idle = a_key(), a_key()
    for each in (key, idle):
        await keys.add_key(each, BY)
    await keys.touch_keys([key.id])
    used = await keys.find_keys([key.id, idle.id])
    assert abs(used[key.id].used_at - await keys.now()) < 60_000
    assert used[idle.id].used_at is None


async def test_nothing_stored_makes_the_key_again(keys: Any):
    key, text = draw("acme", "", ["read"], now_ms=0)
    await keys.add_key(key, BY)
    [stored] = await keys.keys()
    secret = text.split("_", 2)[2]
    assert secret not in repr(stored)
    token = token_of(text)
    assert token is not None
    assert token.key_id == stored.id
    assert stored.opens(token.sha256)
    wrong = token_of(f"pl_{key.id}_{'A' * 43}")
    assert wrong is not None
    assert not stored.opens(wrong.sha256)


async def test_a_pass_comes_back_its_first_use_is_noted_once_and_what_is_over_is_forgotten(keys: Any):
    text = drawn()
    digest = digest_of(text)
    assert digest is not None
    made = Pass(digest, "k", "acme", frozenset(("a", "b")), False, "https://a.example", created_at=1000)
    assert await keys.add_pass(made)
    assert await keys.use_pass(digest) == made
    used = await keys.use_pass(digest)
    assert used == replace(made, used_at=used.used_at)
    assert used.used_at is not None
    assert await keys.use_pass(digest) == used
    assert await keys.use_pass(b"unknown") is None
    later = replace(made, sha256=b"later", created_at=1000 + FIRST_USE_MS)
    assert await keys.add_pass(later)
    assert await keys.use_pass(digest) == used  # it was used in time
    last = replace(made, sha256=b"last", created_at=1000 + LAST_MS)
    assert await keys.add_pass(last)
    assert await keys.use_pass(digest) is None

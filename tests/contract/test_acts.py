"""What administrative acts promise, on SQLite and on each PostgreSQL."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from events.acts import By
from events.catalog import Administered
from events.errors import PhaselineError
from events.holds import HoldAct
from events.keys import draw
from events.record import Recorded
from events.schedules import Schedule, ScheduleAct
from events.webhooks import Endpoint, new_secret
from tests.builders import committing

pytestmark = pytest.mark.parametrize("store", ["sqlite", "postgres", "postgres_18"], indirect=True)

ADA = By("user:ada", "203.0.113.9", "a new colleague")


async def made(log: Any, *, tenant: str = "acme", by: By = ADA) -> str:
    """The id of a new key."""
    key, _ = draw(tenant, "CI", ["read"], now_ms=await log.now(), expires_at=1_900_000_000_000)
    await log.add_key(key, by)
    return key.id


async def the_feed(log: Any, tenant: str | None, *, acts: bool) -> list[Recorded]:
    found: list[Recorded] = []
    cursor = ""
    async with asyncio.timeout(20):  # on PostgreSQL other transactions on the server hold the feed back a little
        while page := await log.feed(cursor, 1, tenant, acts=acts):
            if not page.events:
                return found
            found += page.events
            cursor = page.cursor
    raise AssertionError


async def test_a_key_made_and_revoked_is_two_events_with_actor_address_and_reason(log: Any):
    key_id = await made(log)
    assert await log.revoke_key(key_id, By("user:bob"))
    assert await log.revoke_key(key_id, By("user:eve"))  # revoked already: nothing was done
    assert not await log.revoke_key("unknown", ADA)
    revoked, created = await log.acts("acme", None, 10)
    assert (created.seq, created.type, created.attempt, created.tenant) == (1, "administered", 0, "acme")
    assert (created.actor, revoked.actor) == ("user:ada", "user:bob")
    digest = (await log.find_keys([key_id]))[key_id].sha256.hex()
    assert created.act() == Administered(
        act="key_created",
        target=key_id,
        changed={"name": "CI", "scopes": ["read"], "expires_at": "2030-03-17T17:46:40.000Z", "sha256": digest},
        address="203.0.113.9",
        reason="a new colleague",
    )
    assert revoked.act() == Administered(act="key_revoked", target=key_id, changed={"name": "CI"})
    assert abs(created.at - await log.now()) < 60_000


async def test_that_a_key_expired_is_told_once(log: Any):
    now = await log.now()
    sweeper = By("system:sweeper")

    async def made_for(tenant: str, expires_at: int | None) -> str:
        key, _ = draw(tenant, "CI", ["read"], now_ms=now, expires_at=expires_at)
        await log.add_key(key, ADA)
        return key.id

    def expired(key_id: str, at: str) -> Any:
        return ("key_expired", "system:sweeper", key_id, {"name": "CI", "expires_at": at}, None, None)

    async def expiries(tenant: str) -> list[Any]:
        return [act for act in await told(log, tenant) if act[0] == "key_expired"]

    await made_for("acme", None)
    await made_for("acme", now + 3_600_000)
    revoked = await made_for("acme", 2000)
    await log.revoke_key(revoked, ADA)
    one, same_time, late = [await made_for("acme", at) for at in (1000, 1000, 3000)]
    theirs = await made_for("other", 4000)
    both = await asyncio.gather(*(log.tell_expired(sweeper, 3) for _ in range(2)))
    assert sum(both) == 4
    assert await log.tell_expired(sweeper, 3) == 0
    first = [expired(key_id, "1970-01-01T00:00:01.000Z") for key_id in (one, same_time)]
    found = await expiries("acme")
    assert len(found) == 3
    assert all(act in found for act in [*first, expired(late, "1970-01-01T00:00:03.000Z")])
    assert await expiries("other") == [expired(theirs, "1970-01-01T00:00:04.000Z")]
    again = await made_for("acme", 5000)
    assert await log.tell_expired(sweeper, 3) == 1
    assert (await expiries("acme"))[-1] == expired(again, "1970-01-01T00:00:05.000Z")


async def told(log: Any, tenant: str = "acme") -> list[tuple[str, str, str, dict[str, Any], str | None, str | None]]:
    """A tenant's acts, oldest first: act, actor, target, what was changed, address, reason."""
    acts = [(recorded, recorded.act()) for recorded in reversed(await log.acts(tenant, None, 50))]
    return [(act.act, at.actor, act.target, act.changed, act.address, act.reason) for at, act in acts]


async def test_what_is_done_with_a_schedule_is_told_and_its_ticks_are_not(log: Any):
    job = {"engine": "fpl", "params": {"secret": "x"}}
    schedule = Schedule("s1", "acme", "weekly", "0 6 * * FRI", "UTC", "last", 10, job, 1, "user:ada", 5000)
    created = ScheduleAct("created", 1, "user:ada", "203.0.113.9", "as agreed")
    assert await log.add_schedule(schedule, created) == "made"
    assert await log.add_schedule(replace(schedule, id="s2"), created) == "taken"
    assert await log.advance_schedule(
        replace(schedule, last_at=5000), 9000, [ScheduleAct("skipped", 2, "system:schedules")]
    )
    assert await log.set_schedule("s1", None, ScheduleAct("paused", 3, "key:k"))
    assert await log.set_schedule("s1", 9000, ScheduleAct("resumed", 4, "key:k", None, "again"))
    assert await log.drop_schedule("s1", ScheduleAct("deleted", 5, "key:k"))
    assert not await log.drop_schedule("s1", ScheduleAct("deleted", 6, "key:k"))
    assert not await log.set_schedule("s1", None, ScheduleAct("paused", 7, "key:k"))
    changed = {"cron": "0 6 * * FRI", "timezone": "UTC", "engine": "fpl"}
    assert await told(log) == [
        ("schedule_created", "user:ada", "weekly", changed, "203.0.113.9", "as agreed"),
        ("schedule_paused", "key:k", "weekly", {}, None, None),
        ("schedule_resumed", "key:k", "weekly", {"next_at": "1970-01-01T00:00:09.000Z"}, None, "again"),
        ("schedule_deleted", "key:k", "weekly", {}, None, None),
    ]


async def test_webhooks_are_told_without_secret_and_without_what_may_be_one(log: Any):
    secret = new_secret()
    endpoint = Endpoint("acme", secret, None, None, "https://u:p@hooks.example:8443/T0/s3cret?key=s3cret", 0)
    await log.keep_endpoint(endpoint, ADA)
    await log.keep_endpoint(endpoint.rotated(await log.now()), By("user:bob"), rotated=True)
    assert await log.drop_endpoint("acme", By("user:bob"))
    assert not await log.drop_endpoint("acme", By("user:bob"))
    assert await told(log) == [
        ("webhooks_set", "user:ada", "acme", {"origin": "https://hooks.example:8443"}, ADA.address, ADA.reason),
        ("webhooks_rotated", "user:bob", "acme", {}, None, None),
        ("webhooks_removed", "user:bob", "acme", {}, None, None),
    ]


async def test_a_hold_is_told_when_it_is_placed_and_when_it_is_lifted(log: Any):
    async with committing(log) as running:
        job_id = (await running.started()).job.id
    for held in (True, False):
        await log.hold(HoldAct(job_id, "acme", held, 0, "user:counsel", "203.0.113.9", "case 4711"))
    assert await told(log) == [
        (act, "user:counsel", job_id, {}, "203.0.113.9", "case 4711") for act in ("hold_placed", "hold_lifted")
    ]


async def test_acts_are_paged_newest_first_and_are_a_tenants_own(log: Any):
    keys = [await made(log) for _ in range(3)]
    await made(log, tenant="other")
    first = await log.acts("acme", None, 2)
    rest = await log.acts("acme", first[-1].job_id, 2)
    assert [one.act().target for one in (*first, *rest)] == keys[::-1]
    assert [one.tenant for one in await log.acts("other", None, 9)] == ["other"]
    assert await log.acts("nobody", None, 9) == []


async def test_nothing_of_a_key_is_kept_when_its_act_cannot_be(log: Any):
    key, _ = draw("acme", "", ["read"], now_ms=0)
    with pytest.raises(PhaselineError):
        await log.add_key(key, By("user:ada", None, "\ud800"))
    assert await log.keys() == []
    assert await log.acts("acme", None, 9) == []


async def test_the_feed_shows_acts_only_where_they_are_asked_for(log: Any):
    async with committing(log) as running:
        before = (await running.started()).job.id
        key_id = await made(log, tenant="default")
        after = (await running.started()).job.id
    all_of_it = await the_feed(log, None, acts=False)  # whoever copies the log
    assert [recorded.act().target for recorded in all_of_it if recorded.type == "administered"] == [key_id]
    assert await the_feed(log, "default", acts=True) == all_of_it
    jobs_only = await the_feed(log, "default", acts=False)
    assert {recorded.job_id for recorded in jobs_only} == {before, after}
    assert jobs_only == [recorded for recorded in all_of_it if recorded.type != "administered"]


async def test_an_act_is_no_job(log: Any):
    await made(log, tenant="default")
    [act] = await log.acts("default", None, 9)
    assert await log.head(act.job_id) is None
    assert await log.job(act.job_id, "default") is None
    assert [row async for row in log.all_jobs()] == []


async def test_whoever_hears_of_acts_hears_after_the_commit(log: Any):
    heard: list[None] = []
    log.on_act = lambda: heard.append(None)
    with pytest.raises(PhaselineError):
        await made(log, by=By("user:ada", None, "\ud800"))
    assert heard == []
    await made(log)
    assert heard == [None]

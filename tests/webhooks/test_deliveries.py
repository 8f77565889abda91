"""The end of a job is told to its receiver: signed, at least once under one id, and to nobody it may not be told to."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from events.acts import By
from events.log import Log
from events.values import decode
from events.webhook_url import Rules, networks
from events.webhooks import Answer, Endpoint, Settled
from phaseline import database
from phaseline.erase import erase
from tests.builders import a_cancel, a_failure, a_reopen
from tests.ports import free_port
from tests.webhooks.conftest import LOOPBACK, Scene
from tests.webhooks.receiver import Receiver, badly, certificate, never, receiving, well


async def event_at(log: Log, job_id: str, seq: int) -> Any:
    [recorded] = await log.read(job_id, seq - 1, limit=1)
    return decode(recorded.line())


async def test_a_completed_job_is_told_signed_and_as_its_stream_has_it(scene: Scene):
    await scene.sign()
    async with receiving() as receiver, scene.delivering():
        job_id = await scene.completed(receiver.url, tags=("weekly",))
        owed = await scene.settled(job_id)
        [said] = receiver.verified(scene.secret)
    event = await event_at(scene.log, job_id, owed.seq)
    assert said == {
        "type": "job.completed",
        "timestamp": event["timestamp"],
        "data": {"job": {"id": job_id, "engine": "countdown", "tags": ["weekly"], "rerun_of": None}, "event": event},
    }
    assert event["results"] == {"n": 1}
    assert receiver.ids == [f"{job_id}.{owed.seq}"]
    assert [(one.attempt, one.status, one.failure) for one in owed.tried] == [(1, 204, None)]
    assert scene.telemetry.value("phaseline_webhooks_total", outcome="delivered") == 1


async def test_every_end_of_a_job_is_told_also_when_two_come_at_once(scene: Scene):
    await scene.sign()
    async with receiving() as receiver, scene.delivering():
        claimed = await scene.running.started(webhook=receiver.url)
        commands: list[Any] = [
            a_failure(claimed, retryable=False),
            a_reopen(),
            a_cancel(),
        ]  # gathered into one transaction
        await asyncio.gather(*(scene.running.committer.execute(claimed.job.id, one) for one in commands))
        await receiver.came(2)
    assert sorted(said["type"] for said in receiver.verified(scene.secret)) == ["job.cancelled", "job.failed"]
    assert len(set(receiver.ids)) == 2


async def test_a_job_that_names_no_url_is_told_where_its_tenant_says_and_no_other_tenants_is(scene: Scene):
    async with receiving() as tenants, receiving() as own, scene.delivering():
        await scene.sign(tenants.url)
        other = await scene.completed(tenant="other")
        first, second = await scene.completed(), await scene.completed(own.url)
        assert (await scene.settled(first)).url == tenants.url
        assert (await scene.settled(second)).url == own.url
    assert (len(tenants.got), len(own.got)) == (1, 1)
    assert await scene.log.deliveries(other) == []


async def test_what_fails_is_tried_again_under_the_same_id_until_it_is_taken(scene: Scene):
    await scene.sign()
    async with receiving(badly(3)) as receiver, scene.delivering():
        job_id = await scene.completed(receiver.url)
        owed = await scene.settled(job_id)
    assert [(one.attempt, one.status) for one in owed.tried] == [(1, 503), (2, 503), (3, 503), (4, 200)]
    assert set(receiver.ids) == {f"{job_id}.{owed.seq}"}
    assert len({body for _, _, body in receiver.got}) == 1


async def test_a_receiver_that_is_away_is_tried_a_bounded_number_of_times(scene: Scene):
    await scene.sign()
    async with receiving() as receiver:
        pass  # and nobody listens there any more
    async with scene.delivering(attempts_max=3):
        job_id = await scene.completed(receiver.url)
        owed = await scene.settled(job_id, "abandoned")
    assert [(one.status, one.failure) for one in owed.tried] == [(None, "not_connected")] * 3


async def test_a_receiver_that_wants_no_more_is_asked_once(scene: Scene):
    await scene.sign()
    async with receiving(badly(9, 410)) as receiver, scene.delivering():
        owed = await scene.settled(await scene.completed(receiver.url), "abandoned")
    assert [one.status for one in owed.tried] == [410]


async def test_a_receiver_says_when_to_come_back(scene: Scene):
    await scene.sign()
    async with receiving(badly(1, 429, **{"Retry-After": "3600"})) as receiver, scene.delivering():
        owed = await scene.tried(await scene.completed(receiver.url))
    assert owed.next_at - owed.tried[0].at == pytest.approx(3_600_000, abs=1000)


async def test_a_redirect_is_not_followed(scene: Scene):
    await scene.sign()
    async with receiving() as elsewhere:

        async def away(_: Receiver, __: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": elsewhere.url})

        async with receiving(away) as receiver, scene.delivering(attempts_max=1):
            owed = await scene.settled(await scene.completed(receiver.url), "abandoned")
    assert [one.status for one in owed.tried] == [307]
    assert elsewhere.got == []


async def test_what_a_receiver_says_without_end_is_not_listened_to(scene: Scene):
    async def endless(_: Receiver, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 65536)

    await scene.sign()
    async with receiving(endless) as receiver, scene.delivering():
        assert (await scene.settled(await scene.completed(receiver.url))).tried[0].status == 200


async def test_a_receiver_that_never_answers_holds_up_no_other_and_no_job(scene: Scene):
    await scene.sign()
    async with receiving(never) as slow, receiving() as quick, scene.delivering(timeout_s=600.0):
        for _ in range(6):
            await scene.completed(slow.url)
        await slow.came(2)
        for _ in range(3):
            await scene.settled(await scene.completed(quick.url))
        assert len(slow.got) == 2  # its own two places


async def test_a_tenant_with_many_slow_receivers_leaves_places_to_others(scene: Scene):
    await scene.sign()
    await scene.sign(tenant="other")
    async with (
        receiving(never) as a, receiving(never) as b, receiving(never) as c, receiving() as quick,
        scene.delivering(places=8, timeout_s=600.0),
    ):  # fmt: skip
        for slow in (a, b, c) * 2:
            await scene.completed(slow.url)
        await scene.settled(await scene.completed(quick.url, tenant="other"))
        assert len(a.got) + len(b.got) + len(c.got) <= 2  # a quarter


async def test_a_quick_receiver_earns_places_and_leaves_half_to_others_when_it_hangs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("events.deliverer.QUICK_MS", 60_000)  # however slow this machine is
    quick = 12

    async def at_first(receiver: Receiver, request: web.Request) -> web.Response:
        return await (well if len(receiver.got) <= quick else never)(receiver, request)

    await scene.sign()
    await scene.sign(tenant="other")
    async with receiving(at_first) as hangs, receiving() as well_too:
        for _ in range(quick + 12):
            await scene.completed(hangs.url)
        async with scene.delivering(places=8, timeout_s=600.0):
            await hangs.came(quick + 4)  # four at once: more than the two it began with
            for _ in range(3):
                await scene.settled(await scene.completed(well_too.url, tenant="other"))
            assert len(hangs.got) == quick + 4


async def test_a_receiver_that_gets_bad_has_its_first_places_again(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("events.deliverer.QUICK_MS", 60_000)
    jobs, bad = 24, 12
    waits: list[asyncio.Event] = []

    async def then_badly(receiver: Receiver, request: web.Request) -> web.Response:
        if len(receiver.got) <= bad:
            return await well(receiver, request)
        waits.append(asyncio.Event())
        await waits[-1].wait()
        return web.Response(status=500)

    await scene.sign()
    async with receiving(then_badly) as receiver, receiving() as another:
        for _ in range(jobs):
            await scene.completed(receiver.url)
        async with scene.delivering(places=16, timeout_s=600.0, backoff_s=3600.0):
            await receiver.came(bad + 8)
            for one in waits[:7]:
                one.set()
            await receiver.came(bad + 9)
            await scene.settled(await scene.completed(another.url))  # and a look later
            assert len(receiver.got) == bad + 9  # one that hung before, and one more: two


async def test_what_is_claimed_together_is_read_and_settled_together(scene: Scene):
    await scene.sign()
    jobs = [await scene.completed("http://127.0.0.1:1/hook", tags=(f"n{n}",)) for n in range(4)]
    await erase(scene.settings, jobs.pop(), actor="user:officer", reason="asked")
    found = await scene.log.due_deliveries({}, 10, 10)
    [due] = found.due["default"].values()
    claimed = sorted(await scene.log.claim_deliveries(due, 60.0), key=lambda one: jobs.index(one.job_id))
    assert await scene.log.claim_deliveries(due, 60.0) == []
    now, contents = await scene.log.contents(claimed)
    assert [contents[one.id].tags for one in claimed] == [("n0",), ("n1",), ("n2",)]
    assert [contents[one.id].event.seq for one in claimed] == [one.seq for one in claimed]
    good, later, over = claimed
    await scene.log.settle_deliveries(
        [
            Settled(over, Answer(410, duration_ms=3), "abandoned", 0.0),
            Settled(later, Answer(failure="timeout", duration_ms=2), "pending", 50.0),
            Settled(good, Answer(204, duration_ms=1), "delivered", 0.0),
        ]
    )
    owed = [(await scene.log.deliveries(job_id))[0] for job_id in jobs]
    assert [one.state for one in owed] == ["delivered", "pending", "abandoned"]
    assert [(one.tried[0].status, one.tried[0].failure, one.tried[0].duration_ms) for one in owed] == [
        (204, None, 1), (None, "timeout", 2), (410, None, 3),
    ]  # fmt: skip
    assert owed[1].next_at - owed[1].tried[0].at == pytest.approx(50_000, abs=2000)
    assert abs(owed[0].tried[0].at - now) < 60_000


@pytest.mark.parametrize("settings", ["postgres"], indirect=True)
async def test_what_another_process_is_claiming_is_passed_over_and_not_waited_for(scene: Scene):
    await scene.sign()
    jobs = [await scene.completed("http://127.0.0.1:1/hook") for _ in range(2)]
    found = await scene.log.due_deliveries({}, 10, 10)
    [due] = found.due["default"].values()
    async with scene.log._writer.begin() as other:
        held = "SELECT 1 FROM deliveries WHERE job_id = $1 FOR UPDATE"
        await other.exec_driver_sql(held, (jobs[0],))
        assert [one.job_id for one in await scene.log.claim_deliveries(due, 60.0)] == [jobs[1]]
    assert [one.job_id for one in await scene.log.claim_deliveries(due, 60.0)] == [jobs[0]]


async def test_receivers_that_are_away_hide_no_other_of_any_tenant(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """More lanes wait for their next attempt than one look sees, and sort before the one that is due."""
    monkeypatch.setattr("events.deliverer.LANES_MAX", 3)
    *away, own, others = sorted((free_port() for _ in range(9)), key=str)
    for tenant in ("default", "other"):
        await scene.sign(tenant=tenant)
    async with (
        receiving(port=own) as mine, receiving(port=others) as theirs, scene.delivering(backoff_s=43_200.0),
    ):  # fmt: skip
        dead = [await scene.completed(f"http://127.0.0.1:{port}/hook") for port in away]
        for job_id in dead:
            await scene.tried(job_id)
        await scene.settled(await scene.completed(theirs.url, tenant="other"))
        await scene.settled(await scene.completed(mine.url))
    assert [(await scene.log.deliveries(job_id))[0].state for job_id in dead] == ["pending"] * len(dead)


@pytest.mark.parametrize("tenants", [("default", "default", "default"), ("default", "other", "third")])
async def test_receivers_and_tenants_take_turns_however_much_waits_for_one(scene: Scene, tenants: tuple[str, ...]):
    told: list[int] = []

    async def noted(receiver: Receiver, request: web.Request) -> web.Response:
        told.append(receiver.port)
        return await well(receiver, request)

    for tenant in tenants:
        await scene.sign(tenant=tenant)
    ports = sorted((free_port() for _ in range(3)), key=str)
    async with (
        receiving(noted, port=ports[0]) as a, receiving(noted, port=ports[1]) as b, receiving(noted, port=ports[2]) as c,
    ):  # fmt: skip
        owed = [(a, 0)] * 4 + [(b, 1)] * 2 + [(c, 2)]
        jobs = [await scene.completed(receiver.url, tenant=tenants[of]) for receiver, of in owed]
        async with scene.delivering(places=1):
            for job_id in jobs:
                await scene.settled(job_id)
        of_a = [identity.partition(".")[0] for identity in a.ids]
    assert told == [a.port, b.port, c.port, a.port, b.port, a.port, a.port]
    assert of_a == jobs[:4]  # one receiver's in the order of the ends


async def test_a_slow_answer_times_out_and_is_tried_again(scene: Scene):
    async def once(receiver: Receiver, request: web.Request) -> web.Response:
        return await (never if len(receiver.got) == 1 else well)(receiver, request)

    await scene.sign()
    async with receiving(once) as receiver, scene.delivering(timeout_s=2.0):
        owed = await scene.settled(await scene.completed(receiver.url))
    assert [(one.status, one.failure) for one in owed.tried] == [(None, "timeout"), (204, None)]


async def test_a_name_that_leads_elsewhere_a_moment_later_leads_nowhere(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """Rebinding: the same name is 127.0.0.1, which is allowed here, and then 127.0.0.2, which is not."""
    leads = iter(["127.0.0.1", *["127.0.0.2"] * 9])
    asked: list[str] = []
    real = socket.getaddrinfo

    def names(host: str, port: Any, *args: Any, **more: Any) -> Any:
        if host != "rebinding.example":
            return real(host, port, *args, **more)
        asked.append(next(leads))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (asked[-1], port))]

    monkeypatch.setattr(socket, "getaddrinfo", names)
    await scene.sign()
    async with (
        receiving(badly(1)) as first,
        receiving(host="127.0.0.2", port=first.port) as second,
        scene.delivering(attempts_max=3),
    ):
        job_id = await scene.completed(f"http://rebinding.example:{first.port}/hook")
        owed = await scene.settled(job_id, "abandoned")
    assert [one.status or one.failure for one in owed.tried] == [503, "address_not_allowed", "address_not_allowed"]
    assert (len(first.got), second.got) == (1, [])
    assert asked == ["127.0.0.1", "127.0.0.2", "127.0.0.2"]  # looked up once an attempt


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "[::1]"])
async def test_without_leave_no_form_of_loopback_is_connected_to(scene: Scene, host: str):
    await scene.sign()
    async with receiving() as receiver, scene.delivering(Rules(plain_http=True), attempts_max=1):
        owed = await scene.settled(await scene.completed(f"http://{host}:{receiver.port}/"), "abandoned")
    # Short and numeric forms aiohttp refuses by itself, as no URL at all.
    assert [one.failure for one in owed.tried] in (["address_not_allowed"], ["broken"])
    assert receiver.got == []


async def test_an_erased_job_is_told_to_nobody_any_more(scene: Scene):
    await scene.sign()
    async with receiving() as receiver:
        job_id = await scene.completed(receiver.url)
        assert len(await scene.log.deliveries(job_id)) == 1
        await erase(scene.settings, job_id, actor="user:officer", reason="asked")
        assert await scene.log.deliveries(job_id) == []
        assert (await scene.log.job(job_id)).webhook is None
        assert await database.differences(scene.log, job_id) == []
        async with scene.delivering():
            await scene.settled(await scene.completed(receiver.url))
    assert len(receiver.got) == 1


async def test_during_a_rotation_either_secret_verifies(scene: Scene):
    await scene.sign()
    before = await scene.log.endpoint("default")
    assert isinstance(before, Endpoint)
    after = before.rotated(await scene.log.now())
    await scene.log.keep_endpoint(after, By("user:test"), rotated=True)
    async with receiving() as receiver, scene.delivering():
        await scene.settled(await scene.completed(receiver.url))
    assert receiver.verified(before.secret) == receiver.verified(after.secret)


async def test_the_certificate_must_be_the_hosts(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tls, authority = certificate(tmp_path)
    await scene.sign()
    async with receiving(tls=tls) as receiver:
        async with scene.delivering(attempts_max=1):
            owed = await scene.settled(await scene.completed(receiver.url), "abandoned")
            assert [one.failure for one in owed.tried] == ["tls"]
        trusting = ssl.create_default_context(cafile=str(authority))
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
        async with scene.delivering(LOOPBACK, attempts_max=1):
            await scene.settled(await scene.completed(receiver.url))
    assert len(receiver.got) == 1


async def test_two_processes_send_each_once(scene: Scene):
    await scene.sign()
    async with receiving() as receiver, scene.delivering(), scene.delivering():
        jobs = [await scene.completed(receiver.url) for _ in range(8)]
        for job_id in jobs:
            await scene.settled(job_id)
    ends = [(await scene.log.head(job_id)).seq for job_id in jobs]
    assert sorted(receiver.ids) == sorted(f"{job_id}.{seq}" for job_id, seq in zip(jobs, ends, strict=True))


def test_networks_of_a_setting_are_exact():
    with pytest.raises(ValueError, match="host bits"):
        networks(["10.0.0.1/8"])

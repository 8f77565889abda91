"""What a gateway tells of itself, and how it measures how late events are."""

from gateway.deps import DEPS
from gateway.lag import Lag
from tests.gateway.driving import Driver, Gateway

QUIET = {"connections": 0, "viewers": 0, "watched_jobs": 0, "ring_bytes": 0, "frames_sent_total": 0, "repairs_total": 0}


async def test_a_gateway_counts_its_streams_and_how_late_events_reach_who_waits_for_them(
    gateway: Gateway, driver: Driver
):
    before = (await gateway.get("/api/v1/gateway")).json
    assert {name: before[name] for name in QUIET} == QUIET
    assert before["lag"] == {"samples": 0, "p50_ms": None, "p99_ms": None}
    attempt = await driver.started()
    async with gateway.stream(f"/api/v1/jobs/{attempt.job_id}/stream") as stream:
        await stream.until("caught_up")
        assert (await gateway.get("/api/v1/gateway")).json["lag"]["samples"] == 0  # what was there already is not late
        await attempt.progress(50)
        await stream.events(1)
        now = (await gateway.get("/api/v1/gateway")).json
    assert (now["connections"], now["viewers"], now["watched_jobs"]) == (1, 1, 1)
    assert now["ring_bytes"] > 0
    assert now["frames_sent_total"] >= 5
    assert now["lag"]["samples"] == 1
    assert 0 <= now["lag"]["p50_ms"] == now["lag"]["p99_ms"] < 60_000
    assert gateway.app[DEPS].telemetry.value("phaseline_lag_seconds_count") == 1
    assert {name: now[name] for name in ("id", "pid", "started_at")} == {
        name: before[name] for name in ("id", "pid", "started_at")
    }


async def test_of_many_events_at_once_one_is_measured(gateway: Gateway):
    deps = gateway.app[DEPS]
    lag = Lag(deps.clock, deps.telemetry.gateway.lag_s)
    for second in (0, 1, 2):
        lag.take(b'{"job_id":"x","seq":1,"type":"log","attempt":1,"timestamp":"2026-11-24T08:00:0%d.000Z"}' % second)
    assert len(lag.recent_ms()) == 1

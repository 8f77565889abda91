"""The arithmetic of docs/scaling.md, from the figures a run has kept: what a step costs at what one machine was seen to do."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import OURS, number
from benchmarks.report import aligned

EVENTS_A_JOB = 9  # of five phases: `submitted`, `started`, five, the progress of the end, `complete`
LINE_BYTES = 230  # of a small event on the wire
VIEWERS_A_GATEWAY = 10_000  # PHASELINE_CONNECTIONS_MAX by default
DAY_S = 86_400
JOBS_AIM = 1000
EVENTS_A_VIEWER_S = 1.0  # what a viewer is sent while its job runs, for the sums

Rows = Mapping[str, Mapping[str, Any]]


class Unmeasured(Exception):
    """A figure the arithmetic needs is not kept; the message names its row."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What one machine was seen to do."""

    jobs_s: float
    appends_s: float
    event_bytes: float
    messages_s: float
    viewer_kib: float
    idle_viewer_share: float  # of a core
    reconnects_s: float

    @classmethod
    def of(cls, rows: Rows) -> "Costs":
        """From kept rows. Raises `Unmeasured`."""
        busy = _figure(rows, "viewers", "idle viewers: processor")
        back = _figure(rows, "reconnect", "reconnects, each")
        return cls(
            jobs_s=_figure(rows, "fivephase", "five-phase jobs")["median"],
            appends_s=_figure(rows, "append", "append, 10 events")["median"],
            event_bytes=_figure(rows, "jobs", "disk of an event")["median"],
            messages_s=_figure(rows, "fanout", "fan-out to")["median"],
            viewer_kib=_figure(rows, "viewers", "idle viewers: memory")["median"],
            idle_viewer_share=busy["median"] / 100 / _leading(busy["name"]),
            reconnects_s=_leading(back["name"]) / back["median"],
        )


def arithmetic(rows: Rows) -> str:
    """The table: what, how it is reckoned, what comes out. Says so when a row is missing."""
    try:
        costs = Costs.of(rows)
    except Unmeasured as missing:
        return f"Not reckoned: the row `{missing}` is not measured."
    return aligned(
        [
            ("step", "what", "reckoned", "comes to"),
            *_jobs(costs),
            *_viewers(costs, 100_000),
            *_viewers(costs, 1_000_000),
        ]
    )


def _jobs(costs: Costs) -> Iterable[tuple[str, str, str, str]]:
    events = JOBS_AIM * EVENTS_A_JOB
    step = f"{JOBS_AIM:,} five-phase jobs/s"
    yield (
        step,
        "machines like this one, all parts on each",
        f"{JOBS_AIM:,} ÷ {number(costs.jobs_s)} jobs/s",
        f"{math.ceil(JOBS_AIM / costs.jobs_s)}",
    )
    yield (
        step,
        "share of one committer on a Postgres like this one",
        f"{events:,} events/s ÷ {number(costs.appends_s)}",
        f"{events / costs.appends_s:.0%}",
    )
    daily = events * DAY_S * costs.event_bytes
    yield (
        step,
        "log a day",
        f"{events:,} events/s × {DAY_S:,} s × {number(costs.event_bytes)} bytes, indexes included",
        f"{daily / 2**30:,.0f} GiB",
    )
    yield (
        step,
        "hints to one gateway",
        f"{events:,} events/s × {LINE_BYTES} bytes",
        f"{events * LINE_BYTES / 2**20:.1f} MiB/s",
    )


def _viewers(costs: Costs, viewers: int) -> Iterable[tuple[str, str, str, str]]:
    step = f"{viewers:,} viewers"
    gateways = math.ceil(viewers / VIEWERS_A_GATEWAY)
    yield (step, "gateways", f"{viewers:,} ÷ {VIEWERS_A_GATEWAY:,} (the default cap)", f"{gateways}")
    yield (
        step,
        "memory of all gateways",
        f"{viewers:,} × {number(costs.viewer_kib)} KiB",
        f"{viewers * costs.viewer_kib / 2**20:.1f} GiB",
    )
    idle = viewers * costs.idle_viewer_share
    yield (
        step,
        "cores for idle viewers",
        f"{viewers:,} × {1e6 * costs.idle_viewer_share:.1f} millionths of a core",
        f"{idle:.1f}",
    )
    sent = viewers * EVENTS_A_VIEWER_S
    yield (
        step,
        f"cores to send each {EVENTS_A_VIEWER_S:g} event/s",
        f"{sent:,.0f} messages/s ÷ {number(costs.messages_s)} a gateway",
        f"{sent / costs.messages_s:.1f}",
    )
    yield (
        step,
        "all back after a break, every gateway at once",
        f"{VIEWERS_A_GATEWAY:,} ÷ {number(costs.reconnects_s)} viewers/s a gateway",
        f"{VIEWERS_A_GATEWAY / costs.reconnects_s:.0f} s",
    )
    hints = gateways * JOBS_AIM * EVENTS_A_JOB * LINE_BYTES
    yield (
        step,
        f"RabbitMQ's sends, every gateway hearing {JOBS_AIM:,} jobs/s",
        f"{gateways} × {JOBS_AIM * EVENTS_A_JOB:,} events/s × {LINE_BYTES} bytes",
        f"{hints / 2**20:,.0f} MiB/s",
    )


def _figure(rows: Rows, row: str, part: str) -> Mapping[str, Any]:
    figures = rows.get(row, {}).get("figures", ())
    found: Mapping[str, Any] | None = next(
        (one for one in figures if part in one["name"] and one["who"] == OURS and "median" in one), None
    )
    if found is None:
        raise Unmeasured(row)
    return found


def _leading(name: str) -> int:
    return int(name.split(maxsplit=1)[0].replace(",", ""))

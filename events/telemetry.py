"""Every metric of every process, on one page; docs/monitoring.md explains them to whoever runs this.

A `Telemetry` is made once per process, by the composition root, and handed to the parts that count. It has a registry
of its own, so two of them in one test process never meet. What somebody counts anyway is read when it is asked for
(`set_function`): nothing is done per event, and frames cost two additions of integers.

Label values are the closed sets below, never ids, tenants or engines: a series is for ever.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from events.catalog import EVENT_TYPES, Expire, Interrupted
from events.errors import (
    KeyReused,
    LeaseLost,
    LogUnavailable,
    Overloaded,
    PhaselineError,
    StillAlive,
    UniqueKeyTaken,
    UnknownJob,
    Unstorable,
    WrongStatus,
)
from events.tracing import NoTraces, Traces

PREFIX = "phaseline_"
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_REFUSALS: dict[type[PhaselineError], str] = {
    UnknownJob: "unknown_job",
    WrongStatus: "wrong_status",
    LeaseLost: "lease_lost",
    StillAlive: "still_alive",
    KeyReused: "key_reused",
    UniqueKeyTaken: "unique_key_taken",
    Unstorable: "unstorable",
    Overloaded: "overloaded",
    LogUnavailable: "unavailable",
}
REFUSALS = (*_REFUSALS.values(), "broken")
INTERRUPTIONS: tuple[str, ...] = get_args(Interrupted.model_fields["reason"].annotation)
ENDS = ("complete", "error", "cancelled", "retry", *INTERRUPTIONS)
EXPIRIES: tuple[str, ...] = get_args(Expire.model_fields["cause"].annotation)
SWEEPS = ("expire", "tickets", "schedules", "copy", "partitions", "keys")
LANES = ("hints", "tickets", "controls")
ClaimAnswer = Literal["taken", "empty", "lease_lost", "unanswered"]
CLAIMS: tuple[ClaimAnswer, ...] = get_args(ClaimAnswer)
Cap = Literal["connections", "watched_jobs", "tcp_connections"]
CAPS: tuple[Cap, ...] = get_args(Cap)
Limit = Literal[
    "submits",
    "reads",
    "body_bytes",
    "upgrades",
    "connections",
    "tcp_connections",
    "queued_jobs",
    "waiting",
    "refusals",
]
LIMITS: tuple[Limit, ...] = get_args(Limit)
Transport = Literal["websocket", "server_sent_events", "ndjson"]
TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
RESUMES = ("fresh", "resumed", "reset")
TICKS = ("made", "failed", "skipped")
DELIVERIES = ("delivered", "failed", "abandoned")
ANSWERS = ("1xx", "2xx", "3xx", "4xx", "5xx")
CLOSES = tuple(
    map(str, (1000, 1001, 1002, 1003, 1007, 1009, 1011, 1012, 1013, 4000, 4004, 4400, 4401, 4403, 4408, 4429, 4508))
)
GONE = "gone"  # the peer left without our close

COMMIT_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
LAG_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
WAIT_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
REPLAYED_EVENTS = (0, 1, 5, 20, 100, 500, 2000, 10_000, 50_000)
BATCH_COMMANDS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Telemetry:
    """The metrics of one process. Every attribute is a group that one part of the process keeps."""

    def __init__(self, traces: Traces | None = None) -> None:
        self.traces: Traces = traces or NoTraces()
        # Left out: a line more for each counter, about when this process began.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # process_open_fds, process_resident_memory_bytes, CPU, start time
        page = _Page(self.registry)
        self.committer = CommitterMetrics(page)
        self.worker = WorkerMetrics(page)
        self.sweeper = SweeperMetrics(page)
        self.bus = BusMetrics(page)
        self.gateway = GatewayMetrics(page)
        self.webhooks = WebhookMetrics(page)
        self.retention = RetentionMetrics(page)
        self.schedules = ScheduleMetrics(page)
        tasks = page.gauge("asyncio_tasks", "Tasks of this process's event loop that have not ended.")
        tasks.set_function(_tasks)

    def page(self) -> bytes:
        """Everything in Prometheus' text format. Call it from the event loop."""
        return generate_latest(self.registry)

    def value(self, name: str, **labels: str) -> float:
        """One sample by its full name, as a scrape would give it. Raises `KeyError` when there is none."""
        sample = self.registry.get_sample_value(name, labels)
        if sample is None:
            raise KeyError(f"{name}{labels or ''}")
        return sample


class CommitterMetrics:
    def __init__(self, page: "_Page") -> None:
        self.events = page.counter("events_appended", "Events this process committed.", "type", sorted(EVENT_TYPES))
        self.batch = page.histogram("batch_commands", "Commands and claims in one transaction.", BATCH_COMMANDS)
        self.commit_s = page.histogram("commit_seconds", "From the begin of a transaction to its commit.", COMMIT_S)
        self.refused = page.counter("commands_refused", "Commands that changed nothing.", "reason", REFUSALS)
        self.fenced = page.counter("fenced_writes", "Late writes of workers that had lost the job: refused.")
        self.stale = page.counter(
            "stale_batches", "Batches tried without locks and then with them: somebody else had written the same jobs."
        )
        self.unknown = page.counter("unknown_outcomes", "Commands whose transaction had no answer; each is run again.")
        self.resolved = page.counter(
            "unknown_outcomes_resolved",
            "Commands run again after an unknown outcome: recorded before, or only now.",
            "found",
            ("before", "now"),
        )
        self.ended = page.counter("attempts_ended", "Attempts that ended, by the event that ended them.", "how", ENDS)
        self.queue_wait_s = page.histogram(
            "queue_wait_seconds", "From when a job was due to its claim, of claims by this worker.", WAIT_S
        )
        self.waiting = page.gauge("committer_waiting_commands", "Commands queued for the log.")
        self.waiting_bytes = page.gauge("committer_waiting_bytes", "What those commands occupy.")


class WorkerMetrics:
    def __init__(self, page: "_Page") -> None:
        self.claims = page.read_counter("claims", "Claims this worker made, by their answer.", "result", CLAIMS)
        self.beats_failed = page.read_counter("beats_failed", "Beats the database did not answer in time.")
        self.slots = page.gauge("slots", "Places for engines in this worker.", "state", ("busy", "free"))
        self.children = page.gauge("children", "Engine processes this worker keeps.")


class SweeperMetrics:
    def __init__(self, page: "_Page") -> None:
        self.expired = page.counter("expiries", "Attempts and jobs ended for silence or time.", "cause", EXPIRIES)
        self.leader = page.gauge("leader", "1 where this process does that repair for all.", "task", SWEEPS)
        self.failed = page.counter("sweeps_failed", "Repair passes that failed.", "task", SWEEPS)
        self.due_jobs = page.gauge(
            "due_jobs", "Jobs that could be claimed now, as the process that leads `tickets` last counted; else 0."
        )
        self.copy_lag_s = page.gauge(
            "copy_lag_seconds", "Since the RabbitMQ stream was last seen complete; 0 in processes that do not copy."
        )


class BusMetrics:
    def __init__(self, page: "_Page") -> None:
        self.connected = page.gauge("bus_connected", "1 while hints and tickets travel.")
        self.dropped = page.read_counter(
            "publishes_dropped", "Messages dropped unsent: RabbitMQ away, or a full buffer.", "lane", LANES
        )


class GatewayMetrics:
    def __init__(self, page: "_Page") -> None:
        self.connections = page.gauge("connections", "Open streams: WebSockets, server-sent events, NDJSON.")
        self.tcp_connections = page.gauge("tcp_connections", "Open TCP connections, those of streams among them.")
        self.opens = page.counter("opens", "Streams opened.", "transport", TRANSPORTS)
        self.subscriptions = page.gauge("subscriptions", "Streams followed on sockets of many jobs.")
        self.resumes = page.counter("resumes", "Full streams that began, by what `hello` said.", "outcome", RESUMES)
        self.replayed = page.histogram(
            "replayed_events", "Events a full stream was sent before it had caught up.", REPLAYED_EVENTS
        )
        self.catch_up_s = page.histogram("catch_up_seconds", "From the join of a full stream to `caught_up`.", LAG_S)
        self.viewers = page.gauge("viewers", "Streams being followed.")
        self.watched = page.gauge("watched_jobs", "Jobs followed by at least one viewer: one ring each.")
        self.ring_bytes = page.gauge("ring_bytes", "Bytes of all rings.")
        self.page_bytes = page.gauge("page_bytes", "Bytes of the pages kept for replays.")
        self.large_bytes = page.gauge("large_frame_bytes", "Bytes of frames over 256 KiB on their way.")
        self.reads = page.read_counter("page_reads", "Pages read from the log for replays.")
        self.stale = page.gauge("stale_jobs", "Watched jobs of which the log is known to hold more than the ring.")
        self.tail_age_s = page.gauge(
            "tail_age_seconds", "Since the heads of the watched jobs were last compared with the log; 0 without any."
        )
        self.binds = page.read_counter("tail_binds", "Times the tail was bound to the bus; the first is the start.")
        self.repairs = page.read_counter("repairs", "Holes filled from the log.")
        self.sweep_repairs = page.read_counter(
            "sweep_repairs", "Lost hints found only by comparing heads; should stay 0."
        )
        self.lag_s = page.histogram(
            "lag_seconds", "From an event's time to its hand-over to a stream that waited for it; sampled.", LAG_S
        )
        self.frames = page.read_counter("frames_sent", "WebSocket text frames sent.")
        self.frame_bytes = page.read_counter("frame_bytes_sent", "Bytes of those frames.")
        self.closes = page.counter("closes", "WebSockets that ended, by close code.", "code", (*CLOSES, GONE))
        self.refused = page.counter(
            "connections_refused", "Streams not opened, and TCP connections sent away, for a cap.", "cap", CAPS
        )
        self.limited = page.counter(
            "limited", "Requests and connections refused by a limit of one client.", "limit", LIMITS
        )
        self.answers = page.counter("http_answers", "Answers over HTTP, upgrades included.", "status", ANSWERS)
        self.answer_s = page.histogram("http_seconds", "From a request to its answer; streams left out.", COMMIT_S)


class WebhookMetrics:
    def __init__(self, page: "_Page") -> None:
        self.attempts = page.counter("webhooks", "Attempts to deliver a webhook.", "outcome", DELIVERIES)
        self.answer_s = page.histogram("webhook_seconds", "From the begin of an attempt to its outcome.", COMMIT_S)
        self.sending = page.gauge("webhooks_sending", "Attempts under way.")


class RetentionMetrics:
    def __init__(self, page: "_Page") -> None:
        self.jobs = page.counter("retention_jobs", "Jobs retention took out.", "to", ("archived", "discarded"))
        self.failed = page.counter("retention_failed", "Passes of retention that failed.")


class ScheduleMetrics:
    def __init__(self, page: "_Page") -> None:
        self.ticks = page.counter(
            "schedule_ticks", "Ticks that came, and runs of missed ones passed over by `catch_up`.", "outcome", TICKS
        )
        self.paused = page.counter("schedules_paused", "Schedules that could not go on and were paused for it.")


def refusal_of(error: PhaselineError) -> str:
    """The word in `REFUSALS` for why a command changed nothing."""
    return _REFUSALS.get(type(error), "broken")


# ---- how they are made ------------------------------------------------------------------------------------------


class ReadCounter(Collector):
    """A counter somebody else keeps as a plain number; read at each scrape. Until `set_function` it stands at 0."""

    def __init__(self, name: str, text: str, label: str = "", values: Iterable[str] = ()) -> None:
        self._name = PREFIX + name
        self._text = text
        self._label = label
        self._reads: dict[str, Callable[[], float]] = dict.fromkeys(values or ("",), _zero)

    def set_function(self, read: Callable[[], float], label: str = "") -> None:
        """Reads the value (of this label) from here."""
        self._reads[label] = read

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        family = CounterMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        for label, read in self._reads.items():
            family.add_metric([label] if self._label else [], read())
        return [family]


class _Page:
    """Adds metrics to a registry; every value of a label stands at 0 from the start, so that rates see the first."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, label: str = "", values: Iterable[str] = ()) -> Counter:
        made = Counter(PREFIX + name, text, (label,) if label else (), registry=self._registry)
        for value in values:
            made.labels(value)
        return made

    def gauge(self, name: str, text: str, label: str = "", values: Iterable[str] = ()) -> Gauge:
        made = Gauge(PREFIX + name, text, (label,) if label else (), registry=self._registry)
        for value in values:
            made.labels(value)
        return made

    def histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(PREFIX + name, text, buckets=buckets, registry=self._registry)

    def read_counter(self, name: str, text: str, label: str = "", values: Iterable[str] = ()) -> ReadCounter:
        counter = ReadCounter(name, text, label, values)
        self._registry.register(counter)
        return counter


def _zero() -> float:
    return 0.0


def _tasks() -> float:
    try:
        return float(len(asyncio.all_tasks()))
    except RuntimeError:  # asked outside the loop
        return 0.0

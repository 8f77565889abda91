"""Every setting, its unit and its default. Each is an environment variable: `lease_s` is `PHASELINE_LEASE_S`."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from events.errors import PhaselineError

OTHER_FILES = 500  # open files of a process beside its streams: database, RabbitMQ, children, plain requests
OWN_FILES = 200  # of them those that are no connection to it


class Settings(BaseSettings):
    """Read once per process. Raises pydantic's `ValidationError` naming the variable."""

    model_config = SettingsConfigDict(env_prefix="PHASELINE_", frozen=True, extra="ignore")

    database_url: str | None = Field(
        None, description="postgresql://user:password@host/db; without it SQLite in the data directory"
    )
    rabbitmq_url: str | None = Field(None, description="amqp://user:password@host/; without it an in-process bus")
    data_dir: Path = Field(Path(".data/phaseline"), description="where `phaseline up` keeps its data between runs")
    host: str = Field("127.0.0.1", description="address the gateway listens on")
    port: int = Field(8000, ge=0, le=65535, description="port the gateway listens on; 0 picks a free one")
    auth: Literal["auto", "open", "keys"] = Field(
        "auto",
        description="auto: API keys are asked for once there is one, and without one only loopback is listened on; "
        "open: the same, but anywhere; keys: asked for even before there is one",
    )
    oidc_issuer: str = Field(
        "",
        description="URL of an OpenID Connect issuer whose tokens are accepted beside API keys; then everybody is asked",
    )
    oidc_audience: str = Field("", description="what a token's `aud` must name; needed with an issuer")
    oidc_algorithms: str = Field("RS256,ES256", description="comma-separated algorithms tokens may be signed with")
    oidc_scope_claim: str = Field("scope", description="the claim that says what a token may: words, or a list of them")
    oidc_scopes: str = Field(
        "",
        description="comma-separated THEIRS=OURS of that claim's words; without it they are ours: submit, read, cancel, admin",
    )
    oidc_tenant_claim: str = Field(
        "", description="the claim that names a token's tenant; without it all are `default`"
    )
    oidc_leeway_s: int = Field(30, ge=0, le=300, description="how far the issuer's clock may be off")
    allowed_origins: str = Field(
        "", description="comma-separated Origins besides loopback that may open sockets and change anything"
    )
    trusted_proxies: str = Field(
        "", description="comma-separated addresses and networks of proxies whose X-Forwarded-For says who the client is"
    )

    slots: int = Field(max(2, os.cpu_count() or 2), ge=1, le=256, description="engines a worker runs at once")
    lease_s: float = Field(6.0, gt=0, description="a worker silent for this long is replaced")
    beat_s: float = Field(2.0, gt=0, description="how often a worker renews its lease")
    sweep_s: float = Field(1.0, gt=0, description="how often overdue jobs are looked for")
    poll_s: float = Field(5.0, gt=0, description="how often a worker with free slots looks for due jobs by itself")
    leader_s: float = Field(3.0, gt=0, description="lease of the sweeper's leader")
    seal_s: float = Field(10.0, gt=0, description="how often what was appended is sealed for the audit")
    anchor_key_file: Path | None = Field(
        None, description="private key that signs anchors of the audit, as `phaseline audit key` makes it"
    )
    anchors_dir: Path | None = Field(None, description="folder anchors are written to, to be carried off the machine")
    anchor_every_s: float = Field(3600.0, gt=0, description="how often an anchor is written when there are new events")
    retention: str = Field(
        "",
        description="how long jobs are kept after their end, by outcome and engine: completed=30d, failed=180d, "
        "fpl.completed=365d; what is not named is kept for ever",
    )
    archive: str = Field(
        "", description="where jobs go then and are read from: a folder, s3://bucket/prefix, or `discard` for nowhere"
    )
    retention_every_s: float = Field(3600.0, gt=0, description="how often retention looks for jobs that may go")
    drain_s: float = Field(30.0, ge=0, description="after SIGTERM running engines get this long")
    outage_grace_s: float = Field(30.0, ge=0, description="engines go on this long without a database")
    ticket_queues: Literal["classic", "quorum"] = Field(
        "classic",
        description="RabbitMQ's queues of tickets: classic is quickest; quorum for a cluster that loses a node",
    )
    event_partitions: int = Field(1, ge=1, le=1024, description="routing keys of the hints, for sharding gateways")
    result_bytes_max: int = Field(16 * 1024 * 1024, ge=1024, description="largest result an engine may return")
    child_memory_bytes_max: int | None = Field(
        None, ge=64 * 1024 * 1024, description="memory an engine process may allocate (Linux); without it no limit"
    )
    engine_modules: str = Field(
        "", description="comma-separated modules that declare engines beside the installed ones"
    )
    crash_at: str = Field("", description="tests only: this process kills itself at a point of events/crash_points.py")
    connections_max: int = Field(
        10_000, ge=1, description="open streams a gateway process serves; more are sent away for a while"
    )
    compressed_max: int = Field(
        500, ge=0, description="WebSockets of them that may compress (`compress=1`), some 100 KiB each"
    )
    watched_jobs_max: int = Field(20_000, ge=1, description="jobs a gateway process follows for its viewers")
    submits_per_s: float = Field(
        100.0, ge=0, description="jobs one key may make a second, ten times that at once; 0: no limit"
    )
    reads_per_s: float = Field(
        200.0,
        ge=0,
        description="requests that read (GET of the API, streams left out) one key may send a second, ten times that at "
        "once; 0: no limit",
    )
    body_bytes_per_s: int = Field(
        8 * 1024 * 1024, ge=0, description="bytes of request bodies one key may send a second; 0: no limit"
    )
    upgrades_per_s: float = Field(
        50.0, ge=0, description="streams one address may open a second, ten times that at once; 0: no limit"
    )
    connections_per_address: int = Field(1000, ge=0, description="open streams of one address; 0: no limit")
    tcp_connections_per_address: int = Field(
        2000,
        ge=0,
        description="TCP connections of one address, those of streams and those without a request among them; more are "
        "closed at once; 0: no limit",
    )
    tcp_connections_max: int = Field(
        0,
        ge=0,
        description="TCP connections a gateway process has at once; more are answered 503 and closed; 0: as many as it may "
        "open files, less 200",
    )
    queued_jobs_max: int = Field(0, ge=0, description="jobs of one tenant that may wait for a worker; 0: no limit")
    refusals_per_s: float = Field(
        5.0,
        ge=0,
        description="keys that are not good one address may send a second, ten times that at once; 0: no limit",
    )
    running_jobs_max: int = Field(0, ge=0, description="jobs of one tenant that may run at once; 0: no limit")
    idle_s: float = Field(30.0, ge=1, description="a connection without a whole request for this long is closed")
    webhook_places: int = Field(
        16, ge=0, le=1000, description="webhooks this process sends at once; 0: it sends none, others do"
    )
    webhook_timeout_s: float = Field(15.0, gt=0, le=300, description="a receiver must answer within")
    webhook_attempts_max: int = Field(10, ge=1, le=100, description="attempts before a webhook is given up")
    webhook_backoff_s: float = Field(
        5.0, gt=0, description="wait after the first failed attempt; four times longer after each, 12 h at most"
    )
    webhook_networks: str = Field(
        "", description="comma-separated addresses and networks that are not public and webhooks may go to all the same"
    )
    webhook_http: bool = Field(False, description="webhooks may go to http:// too")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="port of a worker's /metrics, off by default; 0 picks a free one"
    )
    metrics_host: str = Field("127.0.0.1", description="address of that port")
    traces: Literal["off", "otlp"] = Field(
        "off", description="otlp: spans to OTEL_EXPORTER_OTLP_ENDPOINT, with the extra phaseline[otel]"
    )
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    log_format: Literal["text", "json"] = Field("text", description="text for people, json: one object a line")


class Misconfigured(PhaselineError):
    """The settings do not fit together."""


def words(text: str) -> tuple[str, ...]:
    """A comma-separated setting."""
    return tuple(word.strip() for word in text.split(",") if word.strip())

"""One trace from the request that made a job to the frame its viewer got, as a collector is sent it by real processes."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.faults.fleet import until
from tests.installation import Viewer, api, embedded, on_servers, running
from tests.integration.conftest import ENVIRONMENT
from tests.ports import free_port
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


@dataclass(frozen=True)
class Told:
    """A span as the collector got it, ids in hex."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    begin_ns: int
    end_ns: int
    attributes: dict[str, str] = field(compare=False, hash=False)


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[Told]]]:
    """What an OTLP collector is, as far as these tests go: its URL, and every span it was sent."""
    spans: list[Told] = []

    async def take(request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for of in sent.resource_spans:
            service = next(a.value.string_value for a in of.resource.attributes if a.key == "service.name")
            for span in (span for scope in of.scope_spans for span in scope.spans):
                about = {a.key: a.value.string_value or str(a.value.int_value) for a in span.attributes}
                ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                spans.append(Told(service, span.name, *ids, span.start_time_unix_nano, span.end_time_unix_nano, about))
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/v1/traces", take)])
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}", spans
    finally:
        await runner.cleanup()


@pytest.mark.timeout(300)
async def test_a_trace_goes_from_the_request_over_the_worker_to_the_frame(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path
):
    settings = await postgres_settings(postgres, tmp_path)
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    async with collector() as (url, spans):
        traced = {"PHASELINE_TRACES": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        made = on_servers(str(settings.database_url), rabbit_url, **ENVIRONMENT | traced)
        async with running(made), api(made.url) as http:
            job = await http.post(
                "/api/v1/jobs", {"engine": "countdown", "params": {"steps": 3, "step_s": 0.2}}, 202, **HEADER
            )
            viewer = await Viewer(made.url, job["id"]).follow_to_the_end()
            unasked = await http.submit("countdown", {"steps": 1, "step_s": 0.01})
            await Viewer(made.url, unasked).follow_to_the_end()
            await until(lambda: {"attempt countdown", "frame"} <= {s.name for s in spans}, "spans")
            assert await made.stop() == [0, 0]  # what waited is sent before they end
    mine = [span for span in spans if span.trace == TRACE]
    (submit,) = (span for span in mine if span.name == "submit")
    (attempt,) = (span for span in mine if span.name == "attempt countdown")
    assert submit.parent == CALLER
    assert viewer.events[0]["traceparent"] == f"00-{TRACE}-{submit.id}-01"
    below = {"commit", "publish ticket", "wait for a worker", "attempt countdown", "frame"}
    assert {span.name for span in mine if span.parent == submit.id} == below
    phases = [span.name for span in mine if span.parent == attempt.id]
    seen = [event["phase"] for event in viewer.events if event["type"] == "progress"]
    assert phases == [f"phase {name}" for name in dict.fromkeys(seen)]
    assert {span.service for span in mine if span.name in {"submit", "commit", "publish ticket", "frame"}} == {
        "phaseline-gateway"
    }
    assert attempt.service == "phaseline-worker"
    frames = [span for span in mine if span.name == "frame"]
    assert max(int(span.attributes["phaseline.seq"]) for span in frames) == viewer.seqs[-1]
    assert all(span.begin_ns <= span.end_ns for span in mine)
    # A request without a trace begins one of its own.
    others = {span.trace for span in spans} - {TRACE}
    assert len(others) == 1
    (other,) = (span for span in spans if span.name == "submit" and span.trace in others)
    assert other.parent == ""


async def test_without_traces_nothing_is_kept_of_a_header(tmp_path: Path):
    async with running(embedded(tmp_path, **ENVIRONMENT)) as made, api(made.url) as http:
        job = await http.post("/api/v1/jobs", {"engine": "countdown", "params": {"steps": 1}}, 202, **HEADER)
        assert "traceparent" not in (await http.events(job["id"]))[0]


def test_without_traces_the_sdk_is_not_loaded():
    script = "import sys, phaseline.compose; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

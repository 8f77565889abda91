"""Traces through OpenTelemetry's SDK, the extra `phaseline[otel]`: spans leave in batches, from a thread of the SDK.

Where to, how much and under which name is told by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_TRACES_SAMPLER`, …). What does not fit the SDK's queue is dropped.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from events.tracing import Kind, Span

FLUSH_S = 3.0  # what a process that ends gives its last spans
_KINDS = {
    "server": SpanKind.SERVER,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}
_WIRE = TraceContextTextMapPropagator()


class _Span:
    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        of = self._span.get_span_context()
        return f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}" if of.is_valid else None

    def end(self, failure: str | None = None) -> None:
        if failure is not None:
            self._span.set_status(Status(StatusCode.ERROR, failure))
        self._span.end()


class OtelTraces:
    """Spans of one process. `service` is its name unless `OTEL_SERVICE_NAME` gives another."""

    on = True

    def __init__(self, service: str, version: str, exporter: SpanExporter | None = None) -> None:
        names = {"service.version": version, "service.instance.id": f"{socket.gethostname()}[{os.getpid()}]"}
        if "OTEL_SERVICE_NAME" not in os.environ:
            names["service.name"] = service
        self._provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("phaseline", version)

    def begin(
        self,
        name: str,
        parent: str | None,
        kind: Kind = "internal",
        attributes: Mapping[str, str | int] | None = None,
        *,
        began_ms: int | None = None,
    ) -> Span:
        """As `events.tracing.Traces` has it."""
        return _Span(
            self._tracer.start_span(
                name,
                context=_WIRE.extract({"traceparent": parent} if parent else {}),
                kind=_KINDS[kind],
                attributes=attributes,
                start_time=None if began_ms is None else began_ms * 1_000_000,
            )
        )

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Sends what is left when the block ends, for as long as a process that ends may take for it."""
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await asyncio.to_thread(self._provider.shutdown)

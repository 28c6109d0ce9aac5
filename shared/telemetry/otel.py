"""Spans to an OpenTelemetry collector, over OTLP/HTTP.

Import it late, and only where `OTEL_EXPORTER_OTLP_ENDPOINT` is set: its packages are the extra `otel`. What
else there is to configure is read from the standard `OTEL_*` variables by OpenTelemetry's own SDK: sampler,
batches, headers, resource (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).

Guaranteed: no span holds an address with a secret, a token, or what people wrote; a collector that is down
costs no event and no answer. Not guaranteed: that every span arrives.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.telemetry.tracing import Attributes, Kind, Span

__all__ = ["OpenTelemetry"]

CLOSING = 3.0
"""Seconds for what is left at the end."""
_KINDS = {
    "server": trace.SpanKind.SERVER,
    "consumer": trace.SpanKind.CONSUMER,
    "producer": trace.SpanKind.PRODUCER,
    "client": trace.SpanKind.CLIENT,
}


class OpenTelemetry:
    """A `Tracer` with a provider of its own: nothing global is set.

    Args:
        services: what this process runs; names it, where `OTEL_SERVICE_NAME` does not.
        processor: where spans go instead of to `endpoint`.
    """

    def __init__(
        self, services: Sequence[str], endpoint: str | None, processor: SpanProcessor | None = None
    ) -> None:
        self._provider = TracerProvider(resource=_resource(services), shutdown_on_exit=False)
        self._provider.add_span_processor(processor or BatchSpanProcessor(_exporter(endpoint)))
        self._tracer = self._provider.get_tracer("feedback_loop", version("ai-feedback-loop"))
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, kind: Kind, name: str, parent: str | None, attributes: Attributes) -> Iterator[Span]:
        context = self._propagator.extract({"traceparent": parent} if parent else {}, Context())
        with self._tracer.start_as_current_span(
            name, context, _KINDS[kind], attributes, record_exception=False, set_status_on_exception=False
        ) as started:
            span = _Span(started)
            try:
                yield span
            except BaseException as error:
                # Its text may hold what people wrote, or an address.
                span.fail(type(error).__name__)
                raise

    async def close(self) -> None:
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop has not waited for it
                loop.call_soon_threadsafe(closed.set)

        # No thread of the loop's own: the process would wait for that one without an end.
        threading.Thread(target=close, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                await closed.wait()


class _Span:
    def __init__(self, started: trace.Span) -> None:
        self._started = started
        context = started.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def note(self, attributes: Attributes) -> None:
        self._started.set_attributes(attributes)

    def fail(self, kind: str) -> None:
        self._started.set_attribute("error.type", kind)
        self._started.set_status(trace.StatusCode.ERROR)


def _resource(services: Sequence[str]) -> Resource:
    attributes = {"service.version": version("ai-feedback-loop")}
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    if not named:
        alone = f"feedback-loop-{services[0]}" if len(services) == 1 else "feedback-loop"
        attributes["service.name"] = alone
    return Resource.create(attributes)


def _exporter(endpoint: str | None) -> OTLPSpanExporter:
    if endpoint is None or "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in os.environ:
        return OTLPSpanExporter()
    return OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")

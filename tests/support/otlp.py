"""A collector of traces: OTLP over HTTP, as OpenTelemetry's exporter speaks it."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

__all__ = ["Collector", "Span", "chain"]


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it arrived; ids in hex."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    failed: bool
    attributes: dict[str, str]


class Collector:
    """Listens on a free port while the block runs. `status` is what it answers."""

    def __init__(self, status: int = 200) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        self._status = status

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes([web.post("/v1/traces", self._take)])
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        if body.startswith(b"\x1f\x8b"):
            body = gzip.decompress(body)
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Span(
                            named["service.name"],
                            span.name,
                            span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.status.code == span.status.STATUS_CODE_ERROR,
                            {
                                entry.key: entry.value.string_value or str(entry.value.int_value)
                                for entry in span.attributes
                            },
                        )
                    )
        return web.Response(
            status=self._status,
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )


def chain(spans: Sequence[Span], last: Span) -> list[Span]:
    """A span and its ancestors, the first of them first."""
    known = {span.id: span for span in spans}
    found = [last]
    while found[0].parent in known:
        found.insert(0, known[found[0].parent])
    return found

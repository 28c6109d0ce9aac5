"""What is seen of HTTP requests: a count and a duration for each, and its place in a trace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic

from aiohttp import web
from aiohttp.typedefs import Middleware

from shared.delivery.sight import Sight
from shared.telemetry.tracing import Attributes, span

__all__ = ["seen"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
NOWHERE = "none"
"""The route of what leads to no handler."""
_ITSELF = frozenset(("/healthz", "/readyz", "/metrics"))
"""Asked all day by platforms and scrapers: no spans."""


def seen(sight: Sight, begun: Callable[[web.Request], Callable[[], None]]) -> Middleware:
    """The outermost middleware. A `traceparent` that the caller sends is continued, traced here or not.

    Args:
        begun: told when a request begins; what it returns is called when it has ended. (A middleware of its
            own would cost each request more.)
    """
    metrics = sight.metrics

    @web.middleware
    async def seen(request: web.Request, handler: Handler) -> web.StreamResponse:
        started, ended = monotonic(), begun(request)
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else NOWHERE
        method = request.method if request.method in METHODS else "other"
        try:
            if route in _ITSELF or (sight.tracer is None and "traceparent" not in request.headers):
                response = await handler(request)
            else:
                response = await _traced(sight, request, handler, method, route)
        finally:
            ended()
        metrics.requests.add(method, route, str(response.status))
        if isinstance(response, web.Response):
            metrics.request_seconds.observe(monotonic() - started, method, route)
        return response

    return seen


async def _traced(
    sight: Sight, request: web.Request, handler: Handler, method: str, route: str
) -> web.StreamResponse:
    # https://opentelemetry.io/docs/specs/semconv/http/http-spans/; no query: it may hold what people ask.
    attributes: Attributes = {
        "http.request.method": method,
        "url.scheme": request.scheme,
        "http.route": route,
    }
    name = method if route == NOWHERE else f"{method} {route}"
    with span(sight.tracer, "server", name, request.headers.get("traceparent"), attributes) as made:
        response = await handler(request)
        made.note({"http.response.status_code": response.status})
        if response.status >= 500:
            made.fail(str(response.status))
        return response

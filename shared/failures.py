"""Failures that a handler raises on purpose; anything else is a bug and climbs the retry ladder."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

__all__ = ["Reject", "Retry", "Unavailable"]


class Retry(Exception):
    """Try this event again, not before `after` seconds."""

    def __init__(self, after: float, reason: str) -> None:
        super().__init__(reason)
        self.after = after


class Reject(Exception):
    """This event can never succeed: dead-letter it now."""


class Unavailable(Exception):
    """A dependency is down; it is nobody's fault, so no attempt is burnt.

    The router parks the event and stops consuming until `probe` returns without raising.
    """

    def __init__(self, dependency: str, reason: str, probe: Callable[[], Awaitable[object]]) -> None:
        super().__init__(f"{dependency}: {reason}")
        self.dependency = dependency
        self.probe = probe

"""How often a caller may call: token buckets in the memory of one process, and who a caller is.

What is guaranteed: within any time a caller gets no more than a bucket's size plus what has dripped into
it since; memory is bounded, however many callers there are. What is not: anything across processes
(each replica counts for itself), and anything about a caller whom `CALLERS` others have followed since:
that one is forgotten, and begins anew.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Literal

__all__ = ["CALLERS", "Buckets", "Limits", "Rate", "address_of"]

CALLERS = 10_000
"""Callers that one kind of bucket remembers."""
AMPLE = 10
"""How many times as often as others a scheduler, a probe or Slack may call."""
FEW = 10
"""How many times more seldom than others may fail to prove who they are, or vote with one vote token."""

Rate = Literal["plain", "ample", "none"]


class Buckets:
    """A token bucket (https://en.wikipedia.org/wiki/Token_bucket) for each caller, full at first.

    Args:
        per_minute: calls that drip into a bucket in a minute, and calls that it holds; 0: no limit.
        clock: seconds that never go back.
        most: callers remembered; whoever has not called for longest is forgotten first.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float], most: int = CALLERS) -> None:
        self._size = per_minute
        self._clock = clock
        self._most = most
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait(self, caller: Hashable) -> float:
        """Seconds until this caller may call; 0: now."""
        if not self._size:
            return 0.0
        level, _ = self._level(caller)
        return 0.0 if level >= 1 else (1 - level) * 60 / self._size

    def take(self, caller: Hashable) -> float:
        """Count a call, if it may be made. Returns 0, else the seconds until it may."""
        if not self._size:
            return 0.0
        level, now = self._level(caller)
        if level < 1:
            return (1 - level) * 60 / self._size
        self._levels[caller] = level - 1, now
        self._levels.move_to_end(caller)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)
        return 0.0

    def _level(self, caller: Hashable) -> tuple[float, float]:
        now = self._clock()
        level, at = self._levels.get(caller, (self._size, now))
        return min(self._size, level + (now - at) * self._size / 60), now

    def __len__(self) -> int:
        return len(self._levels)


class Limits:
    """The limits of one process.

    A right token is not limited. Whoever has presented too many wrong ones is not listened to for a
    while, right or not, so that guessing is slow; tokens that have come right from there before go on.

    Args:
        per_minute: calls a minute of one caller; 0: no limit.
        clock: seconds that never go back.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        seldom = per_minute and max(1, per_minute / FEW)
        self._buckets = {"plain": Buckets(per_minute, clock), "ample": Buckets(AMPLE * per_minute, clock)}
        self._failures, self._votes = Buckets(seldom, clock), Buckets(seldom, clock)
        self._proven: OrderedDict[tuple[str, Hashable], None] = OrderedDict()

    def call(self, address: str, rate: Rate) -> float:
        """A call by whoever is there. Returns 0, else the seconds until it may be made; so do the others."""
        return 0.0 if rate == "none" else self._buckets[rate].take(address)

    def vote(self, holder: Hashable) -> float:
        """A call by the holder of a vote token."""
        return self._votes.take(holder)

    def deaf(self, address: str) -> float:
        """How long tokens from there are not listened to."""
        return self._failures.wait(address)

    def failed(self, address: str) -> float:
        """A wrong token came from there."""
        return self._failures.take(address)

    def proven(self, address: str, token: Hashable) -> bool:
        """Whether this token, which is right, may come from there now."""
        known = (address, token) in self._proven
        if not known and self.deaf(address):
            return False
        self._proven[address, token] = None
        self._proven.move_to_end((address, token))
        if len(self._proven) > CALLERS:
            self._proven.popitem(last=False)
        return True


def address_of(peer: str | None, forwarded: Sequence[str], proxies: int) -> str:
    """Who calls: an IPv4 address, or the /64 of an IPv6 one, which is what one customer gets.

    Args:
        peer: the address at the other end of the connection.
        forwarded: the values of `X-Forwarded-For`, in which each proxy appends whom it serves.
        proxies: how many of them are ours. What stands further left is whatever the caller claims.
    """
    hops = [hop.strip() for value in forwarded for hop in value.split(",")] if proxies else []
    given = hops[-min(proxies, len(hops))] if hops else peer
    return _network(given) or _network(peer) or "unknown"


@lru_cache(CALLERS)
def _network(text: str | None) -> str | None:
    try:
        address = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))

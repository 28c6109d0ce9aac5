"""Counters, gauges and histograms: what a process counts, until somebody asks for it.

Plain dictionaries: counting costs a fraction of a microsecond, and a process that nobody asks never imports
the library that writes the answer (`exposition.py`): 30 ms of CPU, and ten times that where a free plan gives
a tenth of one.

Not guaranteed: anything between threads. All counting happens in the event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import ClassVar, Literal

__all__ = ["Counter", "Gauge", "Histogram", "Instrument", "Labels"]

Labels = tuple[str, ...]
Kind = Literal["counter", "gauge", "histogram"]


@dataclass(slots=True)
class Instrument:
    """What every metric says of itself.

    Attributes:
        name: as it is asked for, without the suffixes of its series (`_bucket`, `_sum`, `_count`).
        labels: the names of its labels; values are given in this order.
    """

    kind: ClassVar[Kind]
    name: str
    meaning: str
    labels: Labels = ()


@dataclass(slots=True)
class Counter(Instrument):
    """Only grows, from 0 at the start of the process."""

    kind = "counter"
    values: dict[Labels, float] = field(default_factory=dict)

    def add(self, *labels: str, by: float = 1) -> None:
        """`by=0` makes the series known: one that begins with 1 has not increased, to Prometheus."""
        self.values[labels] = self.values.get(labels, 0) + by


@dataclass(slots=True)
class Gauge(Instrument):
    """A value as it was last known."""

    kind = "gauge"
    values: dict[Labels, float] = field(default_factory=dict)

    def set(self, value: float, *labels: str) -> None:
        self.values[labels] = value

    def forget(self, *labels: str) -> None:
        self.values.pop(labels, None)


@dataclass(slots=True)
class Distribution:
    """How many observations fell under each bound (the last: over all of them), and their sum."""

    counts: list[int]
    sum: float = 0.0


@dataclass(slots=True)
class Histogram(Instrument):
    """How observations are distributed.

    Attributes:
        bounds: upper bounds of the buckets, ascending, each included.
    """

    kind = "histogram"
    bounds: tuple[float, ...] = ()
    values: dict[Labels, Distribution] = field(default_factory=dict)

    def observe(self, value: float, *labels: str) -> None:
        found = self.values.get(labels)
        if found is None:
            found = self.values[labels] = Distribution([0] * (len(self.bounds) + 1))
        found.counts[bisect_left(self.bounds, value)] += 1
        found.sum += value

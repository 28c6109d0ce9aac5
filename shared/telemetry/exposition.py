"""Metrics as Prometheus reads them: its text format, or OpenMetrics where the caller asks for that.

Import it late: with it comes `prometheus_client`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from shared.telemetry.instruments import Counter, Gauge, Histogram, Instrument

__all__ = ["Exposition"]


class Exposition:
    """The metrics of one runtime, in a registry of its own, with those of the process beside them."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Instruments(list(instruments)))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def answer(self, accept: str) -> tuple[bytes, str]:
        """Body and content type, for a caller with this `Accept`."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _Instruments(Collector):
    def __init__(self, instruments: list[Instrument]) -> None:
        self._instruments = instruments

    def collect(self) -> Iterator[Metric]:
        for instrument in self._instruments:
            yield _family(instrument)


def _family(instrument: Instrument) -> Metric:
    name, meaning, labels = instrument.name, instrument.meaning, instrument.labels
    match instrument:
        case Counter():
            counter = CounterMetricFamily(name, meaning, labels=labels)
            for given, value in instrument.values.items():
                counter.add_metric(given, value)
            return counter
        case Gauge():
            gauge = GaugeMetricFamily(name, meaning, labels=labels)
            for given, value in instrument.values.items():
                gauge.add_metric(given, value)
            return gauge
        case Histogram():
            histogram = HistogramMetricFamily(name, meaning, labels=labels)
            bounds = [*map(floatToGoString, instrument.bounds), "+Inf"]
            for given, found in instrument.values.items():
                histogram.add_metric(given, [*zip(bounds, accumulate(found.counts), strict=True)], found.sum)
            return histogram
    raise AssertionError(instrument)

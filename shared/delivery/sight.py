"""What is seen of events under way: a span and a count for each that is published or handled.

Names and attributes of spans follow OpenTelemetry's conventions for messaging with RabbitMQ
(https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/). One trace runs

    request ─▶ publish ─▶ process ─▶ publish ─▶ process ─▶ call to Slack

because the traceparent that a message carries is that of the span which sent it, and the one that an event
is stored with is that of the step which wrote it: sent again by a relay, it has the same ancestors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from time import monotonic

from shared.bus.envelope import Envelope, Message, encode
from shared.bus.port import Bus, with_headers
from shared.telemetry.metrics import Metrics, Outcome
from shared.telemetry.tracing import Attributes, Tracer, span

__all__ = ["Seen", "Sight"]

FAILED = ("retried", "parked", "dead", "left")


@dataclass(slots=True)
class Seen:
    """A delivery being handled; `outcome` as the metrics name it."""

    outcome: Outcome = "left"


@dataclass(slots=True)
class Sight:
    """Where a process keeps what it sees: its metrics, and a tracer where there is one."""

    metrics: Metrics
    tracer: Tracer | None = None

    def publishing(
        self, envelope: Envelope, bus: Bus, consumer: str | None = None
    ) -> AbstractContextManager[Message]:
        """The message to send, to everyone or to one consumer."""
        if self.tracer is None:
            return nullcontext(encode(envelope))
        return self._traced(self.tracer, envelope, bus, consumer)

    @contextmanager
    def _traced(
        self, tracer: Tracer, envelope: Envelope, bus: Bus, consumer: str | None
    ) -> Iterator[Message]:
        message = encode(envelope)
        exchange = bus.topology.exchange
        to = f"{exchange}:{envelope.type}" if consumer is None else bus.topology.queue(consumer)
        said = {"messaging.operation.name": "publish", "messaging.operation.type": "send"}
        attributes = said | _attributes(envelope, bus, to)
        with span(tracer, "producer", f"publish {to}", envelope.traceparent, attributes) as made:
            yield with_headers(message, traceparent=made.traceparent) if made.traceparent else message

    @contextmanager
    def handling(self, envelope: Envelope, bus: Bus, consumer: str) -> Iterator[Seen]:
        """One delivery, from here to its acknowledgement."""
        seen, started = Seen(), monotonic()
        run, event = str(envelope.correlation), str(envelope.id)
        of = f"{bus.topology.exchange}:{envelope.type}:{bus.topology.queue(consumer)}"
        attributes: Attributes = {}
        if self.tracer is not None:
            said = {"messaging.operation.name": "process", "messaging.operation.type": "process"}
            attributes = said | _attributes(envelope, bus, of) | {"messaging.consumer.group.name": consumer}
        try:
            with span(
                self.tracer, "consumer", f"process {of}", envelope.traceparent, attributes, run, event
            ) as made:
                try:
                    yield seen
                finally:
                    made.note({"feedback_loop.outcome": seen.outcome})
                    if seen.outcome in FAILED:
                        made.fail(seen.outcome)
        finally:
            self.metrics.handled.add(consumer, envelope.type, seen.outcome)
            self.metrics.handling_seconds.observe(monotonic() - started, consumer, envelope.type)


def _attributes(envelope: Envelope, bus: Bus, destination: str) -> dict[str, str | int]:
    return {
        "messaging.system": bus.system,
        "messaging.destination.name": destination,
        "messaging.rabbitmq.destination.routing_key": envelope.type,
        "messaging.message.id": str(envelope.id),
        "messaging.message.conversation_id": str(envelope.correlation),
        "cloudevents.event_type": envelope.type,
        "cloudevents.event_source": envelope.source,
    }

"""What is declared on RabbitMQ, argument by argument: other programs and operators rely on it, and
a queue cannot be declared again with other arguments."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aio_pika
import aiohttp
import pytest

from shared.bus.port import Bus, Delivery, Topology
from shared.bus.rabbit import RabbitBus
from tests.support.rabbit import channel, sweep

LADDER = (0.05, 1, 600)
TYPES = ["feedback.evaluate", "report.ready"]


async def ignore(delivery: Delivery) -> None:
    await delivery.ack()


def expected(topology: Topology) -> dict[str, dict[str, Any]]:
    """Every queue and its arguments."""
    name = topology.exchange
    if topology.queue_type == "classic":
        safe: dict[str, Any] = {"x-dead-letter-exchange": ""}
        limit: dict[str, Any] = {}
    else:
        safe = {
            "x-dead-letter-exchange": "",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        limit = {"x-delivery-limit": 100}
    return {
        queue: {"x-queue-type": topology.queue_type, **arguments}
        for queue, arguments in {
            f"{name}.a": {**safe, **limit, "x-dead-letter-routing-key": f"{name}.dead"},
            f"{name}.dead": {},
            f"{name}.retry.50ms": {**safe, "x-message-ttl": 50},
            f"{name}.retry.1000ms": {**safe, "x-message-ttl": 1000},
            f"{name}.retry.600000ms": {**safe, "x-message-ttl": 600_000},
        }.items()
    }


@pytest.fixture(params=["quorum", "classic"])
def topology(request: pytest.FixtureRequest, exchange: str) -> Topology:
    return Topology(exchange, request.param, LADDER)


@pytest.fixture
async def bus(amqp_url: str, topology: Topology) -> AsyncIterator[RabbitBus]:
    bus = RabbitBus(amqp_url, topology)
    await bus.connect()
    await bus.subscribe("a", TYPES, ignore, 4)
    yield bus
    await bus.close()
    await sweep(amqp_url, topology, ["a"])


@pytest.mark.usefixtures("bus")
async def test_the_broker_has_each_queue_with_these_arguments(amqp_url: str, topology: Topology) -> None:
    async with channel(amqp_url) as opened:
        for name, arguments in expected(topology).items():
            await opened.declare_queue(name, passive=True)  # it is there
            await opened.declare_queue(name, durable=True, arguments=arguments)  # and with just these


@pytest.mark.usefixtures("bus")
async def test_other_arguments_are_refused(amqp_url: str, topology: Topology) -> None:
    # Otherwise the test above would prove nothing.
    for name, arguments in expected(topology).items():
        async with channel(amqp_url) as opened:
            with pytest.raises(aio_pika.exceptions.ChannelPreconditionFailed):
                await opened.declare_queue(name, durable=True, arguments={**arguments, "x-message-ttl": 77})


@pytest.mark.usefixtures("bus")
async def test_the_broker_has_these_exchanges(amqp_url: str, topology: Topology) -> None:
    kinds = {topology.exchange: "topic"} | {topology.retry(delay): "fanout" for delay in LADDER}
    async with channel(amqp_url) as opened:
        for name, kind in kinds.items():
            await opened.declare_exchange(name, passive=True)
            await opened.declare_exchange(name, aio_pika.ExchangeType(kind), durable=True)


@pytest.mark.usefixtures("bus")
async def test_nothing_else_is_declared_and_these_bindings_are_there(topology: Topology) -> None:
    name = topology.exchange
    queues = {entry["name"] for entry in await _listed("queues") if entry["name"].startswith(name)}
    assert queues == set(expected(topology))
    bindings = {
        (entry["source"], entry["destination"], entry["routing_key"])
        for entry in await _listed("bindings")
        if entry["source"].startswith(name)
    }
    retries = [topology.retry(delay) for delay in LADDER]
    assert bindings == {
        *((name, f"{name}.a", type) for type in TYPES),
        *((retry, retry, "") for retry in retries),
    }


async def test_a_second_process_declares_the_same_again(amqp_url: str, topology: Topology, bus: Bus) -> None:
    second = RabbitBus(amqp_url, topology)
    await second.connect()
    await second.subscribe("a", TYPES, ignore, 4)
    assert second.trouble() is None
    assert bus.trouble() is None
    await second.close()


async def _listed(what: str) -> list[Mapping[str, Any]]:
    api = os.environ.get("TEST_RABBITMQ_API")
    if not api:
        pytest.skip("the broker has no HTTP API")
    async with aiohttp.ClientSession() as session, session.get(f"{api}/api/{what}") as response:
        found: list[Mapping[str, Any]] = await response.json()
        return found

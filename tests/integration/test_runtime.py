"""The life of a process: live before it is ready, ready when it consumes, drained when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from shared import events
from shared.bus.envelope import Envelope
from shared.bus.port import Topology
from shared.delivery.outbox import Outbox
from shared.delivery.work import UnitOfWork
from shared.events import LoopPaused
from shared.postgres.database import Database
from shared.process import serve
from shared.runtime import Kernel, Runtime, Service, running
from shared.settings import Settings, SettingsError
from tests.support.events import publish, wait_until
from tests.support.probe import Probe
from tests.support.proxy import in_front_of
from tests.support.rabbit import sweep

MakeSettings = Callable[..., Settings]
LADDER = (0.05,)


def runtime_of(settings: Settings, *builders: Any) -> Runtime:
    return Runtime(settings, builders, Topology(settings.amqp_exchange, ladder=LADDER))


async def get(runtime: Runtime, path: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{runtime.port}{path}") as response,
    ):
        return response.status, await response.json()


async def is_ready(runtime: Runtime) -> bool:
    return (await get(runtime, "/readyz"))[0] == 200


# --- starting -------------------------------------------------------------------------------


async def test_a_started_process_is_live_and_ready(make_settings: MakeSettings) -> None:
    async with running(runtime_of(make_settings(), Probe())) as runtime:
        assert await get(runtime, "/healthz") == (200, {"status": "ok"})
        assert await get(runtime, "/readyz") == (200, {"status": "ready", "services": ["probe"]})


async def test_it_is_live_while_the_database_is_away_and_ready_when_it_comes(
    make_settings: MakeSettings, dsn: str
) -> None:
    async with in_front_of(dsn, 5432) as proxy:
        runtime = runtime_of(make_settings(database_url=proxy.url), Probe())
        await proxy.cut()
        await runtime.start()
        await wait_until(lambda: "database" in runtime.kernel.waiting_for)
        assert await get(runtime, "/healthz") == (200, {"status": "ok"})
        status, answer = await get(runtime, "/readyz")
        assert (status, answer["status"]) == (503, "unavailable")
        assert answer["reason"] == "waiting for the database; the log has more"
        await proxy.heal()
        await wait_until(lambda: is_ready(runtime))
        await runtime.stop()


async def test_it_waits_for_a_broker_and_then_consumes(
    make_settings: MakeSettings, amqp_url: str, exchange: str
) -> None:
    async with in_front_of(amqp_url, 5672) as proxy:
        probe = Probe()
        runtime = runtime_of(make_settings(amqp_url=proxy.url, amqp_exchange=exchange), probe)
        await proxy.cut()
        await runtime.start()
        await wait_until(lambda: "the bus" in runtime.kernel.waiting_for)
        assert not await is_ready(runtime)
        await proxy.heal()
        await wait_until(lambda: is_ready(runtime))
        await publish(runtime.kernel, LoopPaused())
        await wait_until(lambda: probe.calls)
        await runtime.stop()
    await sweep(amqp_url, Topology(exchange, ladder=LADDER), ["probe"])


async def test_readiness_says_that_the_database_went_away(make_settings: MakeSettings, dsn: str) -> None:
    async with (
        in_front_of(dsn, 5432) as proxy,
        running(runtime_of(make_settings(database_url=proxy.url), Probe())) as runtime,
    ):
        await proxy.cut()
        status, answer = await get(runtime, "/readyz")
        assert status == 503
        assert "database" in answer["reason"]
        await proxy.heal()


async def test_readiness_says_that_the_broker_went_away(
    make_settings: MakeSettings, amqp_url: str, exchange: str
) -> None:
    async with (
        in_front_of(amqp_url, 5672) as proxy,
        running(runtime_of(make_settings(amqp_url=proxy.url, amqp_exchange=exchange), Probe())) as runtime,
    ):
        await proxy.cut()

        async def reason() -> bool:
            return bool((await get(runtime, "/readyz"))[1].get("reason") == "reconnecting to RabbitMQ")

        await wait_until(reason)
        await proxy.heal()
        await wait_until(lambda: is_ready(runtime))
    await sweep(amqp_url, Topology(exchange, ladder=LADDER), ["probe"])


async def test_on_render_without_a_database_it_stays_live_and_says_which_setting_is_missing(
    make_settings: MakeSettings,
) -> None:
    runtime = runtime_of(make_settings(database_url=None, render=True), Probe())
    await runtime.start()
    await wait_until(lambda: "DATABASE_URL" in runtime.kernel.waiting_for)
    assert (await get(runtime, "/healthz"))[0] == 200
    status, answer = await get(runtime, "/readyz")
    assert status == 503
    assert answer["reason"].startswith("DATABASE_URL is not set")
    await runtime.stop()


async def test_what_no_waiting_mends_ends_the_start(make_settings: MakeSettings) -> None:
    runtime = runtime_of(make_settings(database_url="postgresql://localhost/x?sslmode=maybe"))
    await runtime.start()
    with pytest.raises(ValueError, match="sslmode"):
        await runtime.ready()
    await runtime.stop()


async def test_what_an_earlier_process_left_open_is_taken_up(
    make_settings: MakeSettings, database: Database
) -> None:
    async with running(runtime_of(make_settings(), Probe())):
        pass  # registers its consumer
    left = Envelope.root(LoopPaused(), "/test")
    async with database.transaction() as connection:
        await Outbox(database, runtime_of(make_settings()).kernel.bus).add(connection, [left])
    probe = Probe()
    async with running(runtime_of(make_settings(), probe)):
        await wait_until(lambda: probe.calls)


async def test_hooks_run_when_all_is_there(make_settings: MakeSettings) -> None:
    steps: list[str] = []

    def build(kernel: Kernel) -> Service:
        async def on_start() -> None:
            await kernel.database.ping()
            assert kernel.bus.trouble() is None
            steps.append("start")

        async def on_stop() -> None:
            await kernel.database.ping()
            assert kernel.bus.trouble() is None
            steps.append("stop")

        return Service("hooked", on_start=on_start, on_stop=on_stop)

    async with running(runtime_of(make_settings(), build)):
        assert steps == ["start"]
    assert steps == ["start", "stop"]


async def test_without_an_http_server_no_port_is_bound(make_settings: MakeSettings) -> None:
    probe = Probe()
    async with running(runtime_of(make_settings(port=1), probe), http_server=False) as runtime:
        await publish(runtime.kernel, LoopPaused())
        await wait_until(lambda: probe.calls)


async def test_nothing_starts_a_server_of_its_own_where_a_database_is_named(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    async with running(runtime_of(make_settings(data_dir=tmp_path / "data"), Probe())):
        pass
    assert not (tmp_path / "data").exists()


# --- ending ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends(
    make_settings: MakeSettings, database: Database, name: signal.Signals
) -> None:
    begun = asyncio.Event()

    async def slow(event: events.Event, work: UnitOfWork) -> list[events.Event]:
        begun.set()
        await asyncio.sleep(0.3)
        return []

    runtime = runtime_of(make_settings(), Probe(work=slow))
    serving = asyncio.create_task(serve(runtime))
    await wait_until(runtime.kernel.ready.is_set)
    (sent,) = await publish(runtime.kernel, LoopPaused())
    await begun.wait()
    os.kill(os.getpid(), name)
    await asyncio.wait_for(serving, 10)
    async with database.connection() as connection:
        assert await connection.fetchval(
            "select count(*) from feedback_loop.inbox where event_id = $1", sent.id
        )


async def test_a_signal_while_it_still_connects_ends_it(make_settings: MakeSettings) -> None:
    runtime = runtime_of(make_settings(database_url="postgresql://127.0.0.1:1/none"))
    serving = asyncio.create_task(serve(runtime))
    await wait_until(lambda: "database" in runtime.kernel.waiting_for)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 10)


async def test_a_taken_port_is_said_plainly(make_settings: MakeSettings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on port {port}: "):
            await serve(runtime_of(make_settings(port=port)))


async def test_stopping_twice_does_no_harm(make_settings: MakeSettings) -> None:
    runtime = runtime_of(make_settings(), Probe())
    await runtime.start()
    await runtime.ready()
    await runtime.stop()
    await runtime.stop()


async def test_a_request_under_way_is_answered_before_the_end(make_settings: MakeSettings) -> None:
    begun = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        begun.set()
        await asyncio.sleep(0.2)
        return web.json_response({"status": "done"})

    runtime = runtime_of(make_settings(), lambda kernel: Service("slow", routes=[web.get("/slow", slow)]))
    await runtime.start()
    await runtime.ready()
    answer = asyncio.create_task(get(runtime, "/slow"))
    await begun.wait()
    await runtime.stop()
    assert await answer == (200, {"status": "done"})

"""Ending a process, or a task, at its k-th await.

Every task of the loop is stepped by a wrapper that sees each suspension of its coroutine. Those that
belong to one service's handling of requests and deliveries are counted (a context variable tells them;
tasks inherit it), and at the k-th the trial strikes: as the await begins (what it asked for may or may
not have left the process), or as it has returned.
"""

from __future__ import annotations

import asyncio
import os
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, Literal
from uuid import UUID

import aiohttp
from aiohttp import web

from shared.bus.port import Delivery, Topology
from shared.delivery.router import Router
from shared.runtime import Builder, Kernel, Runtime, Service, running
from shared.settings import Settings
from tests.support.events import wait_until
from tests.support.forked import quiet
from tests.support.loop import LADDER, SERVICES, settle, settled

__all__ = ["STRUCK", "Life", "Trial", "live"]

Way = Literal["begins", "returned", "cancel"]
STRUCK = 9
"""Exit code of a process that ended at its await."""

_trial: ContextVar[Trial | None] = ContextVar("trial", default=None)


@dataclass
class Trial:
    """Counts awaits, and strikes at one of them.

    Attributes:
        at: which one; 0: none, they are only counted.
        passes: how often the loop runs on after the await began, before it strikes.
    """

    at: int = 0
    way: Way = "begins"
    passes: int = 0
    armed: bool = False
    count: int = 0
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    roots: set[asyncio.Task[Any] | None] = field(default_factory=set)

    def suspended(self) -> int:
        """A coroutine begins to wait. Returns the number of this await."""
        # Only whoever cancels a delivery's own task cancels: its children follow.
        if not self.armed or (self.way == "cancel" and asyncio.current_task() not in self.roots):
            return 0
        self.count += 1
        if self.count == self.at and self.way != "returned":
            self._after(self.passes)
        return self.count

    def returned(self, number: int) -> None:
        if number and number == self.at and self.way == "returned":
            os._exit(STRUCK)

    def _after(self, passes: int) -> None:
        if self.way == "cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            self.struck.set()
        elif passes == 0:
            os._exit(STRUCK)
        else:
            asyncio.get_running_loop().call_soon(self._after, passes - 1)


@types.coroutine
def _watched(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    step: Callable[[Any], Any] = coroutine.send
    value: Any = None
    while True:
        try:
            awaited = step(value)
        except StopIteration as end:
            return end.value
        trial = _trial.get()
        number = trial.suspended() if trial else 0
        try:
            step, value = coroutine.send, (yield awaited)
        except BaseException as error:
            step, value = coroutine.throw, error
        if trial:
            trial.returned(number)


def _factory(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    trial, context = _trial.get(), options.get("context")
    if trial is not None and context is not None:
        context.run(_trial.set, trial)  # what writes for several at once begins with an empty one

    async def stepped() -> Any:
        return await _watched(coroutine)

    return asyncio.Task(stepped(), loop=loop, **options)


def _tried(trial: Trial, work: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    async def tried(given: Any) -> Any:
        token = _trial.set(trial)
        task = asyncio.current_task()
        trial.roots.add(task)
        try:
            return await work(given)
        finally:
            trial.roots.discard(task)
            _trial.reset(token)

    return tried


def _with_routes(build: Builder, trial: Trial) -> Builder:
    def built(kernel: Kernel) -> Service:
        service = build(kernel)
        routes: list[web.AbstractRouteDef] = []
        for route in service.routes:
            assert isinstance(route, web.RouteDef)
            handler: Any = _tried(trial, route.handler)
            routes.append(web.RouteDef(route.method, route.path, handler, route.kwargs))
        return replace(service, routes=routes)

    return built


def _with_deliveries(router: Router, trial: Trial) -> None:
    deliver: Callable[[Delivery], Awaitable[None]] = router.on_delivery
    setattr(router, "on_delivery", _tried(trial, deliver))  # noqa: B010 - a method, to the type checker


# --- one life -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Life:
    """One process that runs every service, recovers what the one before it left, and then lives through
    the story of an app: a vote, a run, a retrain.

    Attributes:
        settings: of the services.
        at: by service, the await at which it ends; empty: it lives to the end.
        before: the app that the process before it died with.
        repeat: whether the clients repeat their requests for `before`, also where they left a trace.
    """

    settings: dict[str, Any]
    service: str
    at: int
    way: Way
    passes: int
    app: str
    before: str | None
    repeat: bool


def live(life: Life, counts: Connection) -> None:
    """Main function of the process: sends the awaits of each service that it lived to the end of."""
    quiet()
    with asyncio.Runner() as runner:
        runner.get_loop().set_task_factory(_factory)
        runner.run(_live(life, counts))


async def _live(life: Life, counts: Connection) -> None:
    trials = {name: Trial() for name in SERVICES}
    fatal = trials[life.service]
    fatal.at, fatal.way, fatal.passes = life.at, life.way, life.passes
    builders = [_with_routes(build, trials[name]) for name, build in SERVICES.items()]
    settings = Settings(_env_file=None, **life.settings)
    runtime = Runtime(settings, builders, Topology(settings.amqp_exchange, ladder=LADDER))
    for router in runtime.routers:
        _with_deliveries(router, trials[router.consumer])
    async with running(runtime):
        if life.before is not None and (life.repeat or not await _has_run(runtime, life.before)):
            await _requests(runtime, life.before)
        await settle(runtime.kernel.database, 40)
        for trial in trials.values():
            trial.armed = True
        story = asyncio.ensure_future(_story(runtime, life.app))
        struck = asyncio.ensure_future(fatal.struck.wait())
        await asyncio.wait({story, struck}, return_when=asyncio.FIRST_COMPLETED)
        if fatal.struck.is_set():  # cancelled, as by a drain whose time is up: the process ends
            story.cancel()
            await asyncio.gather(story, return_exceptions=True)
        else:
            struck.cancel()
            story.result()
        for trial in trials.values():
            trial.armed = False
    if fatal.struck.is_set():
        os._exit(STRUCK)
    counts.send({name: trial.count for name, trial in trials.items()})


async def _has_run(runtime: Runtime, app: str) -> bool:
    async with runtime.kernel.database.connection() as connection:
        return bool(
            await connection.fetchval("select true from feedback_loop.run where app = $1 limit 1", app)
        )


async def _requests(runtime: Runtime, app: str) -> UUID:
    """What clients ask for: a vote, and a run. Returns the run."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}") as http:
        vote = {"app": app, "conversation_id": "asked", "feedback": "dislike", "reason": "wrong"}
        async with http.post("/feedback", json=vote) as response:
            assert response.status == 200, await response.text()
        async with http.post("/run-feedback-loop", json={"app": app}) as response:
            assert response.status == 200, await response.text()
            return UUID(response.headers["Feedback-Loop-Run"])


async def _story(runtime: Runtime, app: str) -> None:
    run = await _requests(runtime, app)

    async def done() -> bool:
        async with runtime.kernel.database.connection() as connection:
            state = await connection.fetchval("select state from feedback_loop.run_status where id = $1", run)
        return state == "done" and await settled(runtime.kernel.database)

    await wait_until(done, 40)

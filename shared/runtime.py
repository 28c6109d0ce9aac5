"""The life of a process: bind the port, connect, migrate, consume; on SIGTERM drain and leave.

The port is bound before anything else is touched, so that a platform sees the process live while
it still connects. `/healthz` depends on nothing; `/readyz` says what is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from shared.bus.memory import MemoryBus
from shared.bus.port import Bus, BusError, Topology
from shared.contracts.asyncapi import Party
from shared.delivery.outbox import Outbox
from shared.delivery.router import Router
from shared.delivery.sight import Sight
from shared.health import Health
from shared.kernel import Builder, Hook, Kernel, Service
from shared.postgres.database import Database, DatabaseUnavailable
from shared.postgres.embedded import start_postgres
from shared.settings import Settings
from shared.telemetry.logs import make_tracer
from shared.telemetry.metrics import Metrics
from shared.web import reference
from shared.web.listener import serve
from shared.web.openapi import Group, document

__all__ = ["Builder", "Kernel", "Runtime", "Service", "running"]

log = logging.getLogger(__name__)

DRAIN = 14.0
"""Seconds for what is in flight at SIGTERM. With all that follows it stays within the thirty after
which platforms kill."""


class Runtime:
    """Runs services in this process, on one port, one pool and one bus.

    Args:
        builders: the services' composition roots.
        topology: what to declare on the bus, where it is not the settings' own.
    """

    def __init__(
        self, settings: Settings, builders: Sequence[Builder], topology: Topology | None = None
    ) -> None:
        self.settings = settings
        topology = topology or Topology(settings.amqp_exchange, settings.amqp_queue_type)
        # The DSN of an embedded server is known once it runs.
        dsn = settings.database_url.get_secret_value() if settings.database_url else ""
        database = Database(dsn, settings.database_pool_size)
        bus = _make_bus(settings, topology)
        sight = Sight(Metrics())
        self.kernel = Kernel(settings, database, bus, Outbox(database, bus, sight=sight), sight)
        if settings.render and settings.render_external_url:
            self.kernel.outbox.while_open = self._stay_awake
        built = [build(self.kernel) for build in builders]
        self.services = [each for service in built for each in (service, *service.also)]
        sight.tracer = make_tracer(settings, [service.name for service in built])
        self._health = Health(self.kernel, [service.name for service in self.services], self._trouble)
        self.groups = [Group("process", reference.ABOUT, self._own_routes(), reference.OPERATIONS)]
        self.groups += [
            Group(service.name, service.contract.about, service.routes, service.contract.operations)
            for service in built
        ]
        self.routes = [route for group in self.groups for route in group.routes]
        self.routers = [self._router(service) for service in self.services if service.registrations]
        self._afterwards: list[Hook] = []
        self._runner: web.AppRunner | None = None
        self._boot: asyncio.Task[None] | None = None

    @property
    def parties(self) -> list[Party]:
        """The services as the bus sees them."""
        return [
            Party(
                service.name,
                service.contract.about,
                [registration.event for registration in service.registrations],
                service.contract.sends,
                service.announces,
            )
            for service in self.services
        ]

    @property
    def port(self) -> int:
        """The bound port (useful where the setting was 0)."""
        assert self._runner is not None and self._runner.addresses
        return int(self._runner.addresses[0][1])

    def when_ready(self, hook: Hook) -> None:
        """Run `hook` once everything is connected and consuming."""
        self._afterwards.append(hook)

    async def start(self, *, http_server: bool = True) -> None:
        """Bind the port and begin to connect; returns before connections stand."""
        if http_server:
            await self._serve()
        self._boot = asyncio.create_task(self._connect())

    async def ready(self) -> None:
        """Wait until everything is connected and consuming.

        Raises:
            Exception: what made starting impossible for good.
        """
        assert self._boot is not None
        await self._boot

    async def stop(self) -> None:
        """Drain and let go: no new deliveries, then what is in flight, then connections."""
        if self._boot is not None:
            # Once may be too few: where a connection fails at that moment, Python 3.11's wait_for raises
            # the failure in place of the cancellation, and the boot would try for ever.
            while not self._boot.done():
                self._boot.cancel()
                await asyncio.wait({self._boot}, timeout=0.5)
            await asyncio.gather(self._boot, return_exceptions=True)
        self.kernel.ready.clear()
        self.kernel.waiting_for, self.kernel.stopping = "stopping", True
        await asyncio.gather(*(router.drain(DRAIN) for router in self.routers))
        for service in self.services:
            if service.on_stop is not None:
                await service.on_stop()
        if self._runner is not None:
            await self._runner.cleanup()
        await self.kernel.close_embedder()
        await self.kernel.mirror.close()
        await self.kernel.outbox.close()
        try:
            await self.kernel.bus.close()
        except BusError as error:
            log.warning("closing the bus: %s", error)
        await self.kernel.database.close()
        if (tracer := self.kernel.sight.tracer) is not None:
            await tracer.close()

    # --- starting -----------------------------------------------------------------------

    async def _serve(self) -> None:
        self._runner = await serve(self.routes, self.settings, self.kernel.guard, self.kernel.sight)

    async def _connect(self) -> None:
        if self.settings.render and self.settings.database_url is None:
            # Render's disk is not kept: an embedded database would forget every vote.
            self.kernel.waiting_for = "DATABASE_URL is not set: point it at a PostgreSQL with pgvector"
            log.error(self.kernel.waiting_for)
            await asyncio.Event().wait()
        if self.settings.database_url is None:
            self.kernel.waiting_for = "starting the embedded database"
            dsn = await start_postgres(self.settings.data_dir)
            self.kernel.database.use(dsn)
        await self._until_it_works("the database", self._open_database)
        await self._until_it_works("the bus", self._open_bus)
        await self.kernel.outbox.prune()
        await self.kernel.outbox.relay(everything=True)
        for service in self.services:
            if service.on_start is not None:
                await service.on_start()
        self.kernel.outbox.watch()
        self.kernel.ready.set()
        for hook in self._afterwards:
            await hook()

    async def _open_database(self) -> None:
        await self.kernel.database.connect()
        await self.kernel.database.migrate()
        for router in self.routers:
            await router.register()

    async def _open_bus(self) -> None:
        try:
            await self.kernel.bus.connect()
            for router in self.routers:
                await router.start()
        except BusError:
            await self.kernel.bus.close()  # half a start would leave a second connection behind
            raise

    async def _until_it_works(self, what: str, step: Hook) -> None:
        pause = 0.5
        while True:
            try:
                await step()
                return
            except (DatabaseUnavailable, BusError) as error:
                # Which is told to anyone who asks; the error may name hosts, users and ports.
                self.kernel.waiting_for = f"waiting for {what}; the log has more"
                log.warning("waiting for %s: %s; again in %g s", what, error, pause)
            except Exception:
                self.kernel.waiting_for = f"{what} cannot be used; the log has more"
                log.exception("%s cannot be used", what)
                raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10)

    async def _stay_awake(self) -> None:
        """Render puts a free process to sleep after 15 minutes without inbound traffic, also in the
        middle of a build: while work is open, it calls itself."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            try:
                async with session.get(f"{self.settings.render_external_url}/healthz", allow_redirects=False):
                    pass
            except aiohttp.ClientError as error:
                log.warning("cannot reach this service from outside: %s", error)

    def _router(self, service: Service) -> Router:
        return Router(
            service.name,
            service.registrations,
            service.deps,
            database=self.kernel.database,
            bus=self.kernel.bus,
            outbox=self.kernel.outbox,
            adopt=self.kernel.adopt,
            prefetch=service.prefetch,
            announces=service.announces,
            sight=self.kernel.sight,
        )

    # --- health -------------------------------------------------------------------------

    def _own_routes(self) -> list[web.AbstractRouteDef]:
        return [
            *self._health.routes(),
            *reference.routes(self.kernel.guard, lambda: document(self.groups)),
        ]

    def _trouble(self) -> str | None:
        """Why this process takes nothing, as far as it knows by itself."""
        if not self.kernel.ready.is_set():
            return self.kernel.waiting_for
        troubles = [self.kernel.bus.trouble(), *(router.trouble() for router in self.routers)]
        return next((trouble for trouble in troubles if trouble), None)


def _make_bus(settings: Settings, topology: Topology) -> Bus:
    if settings.amqp_url is None:
        return MemoryBus(topology)
    from shared.bus.rabbit import RabbitBus  # slow to import, and only needed here

    return RabbitBus(settings.amqp_url.get_secret_value(), topology, settings.amqp_declare)


@asynccontextmanager
async def running(runtime: Runtime, *, http_server: bool = True) -> AsyncIterator[Runtime]:
    """A runtime that is ready inside the block and drained after it."""
    await runtime.start(http_server=http_server)
    try:
        await runtime.ready()
        yield runtime
    finally:
        await runtime.stop()

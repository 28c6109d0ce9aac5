"""A process of services: from its settings to its exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys

from shared.runtime import Builder, Runtime
from shared.settings import SettingsError, load
from shared.telemetry.logs import configure_logs

__all__ = ["run_alone", "serve"]

log = logging.getLogger(__name__)


def run_alone(*builders: Builder) -> None:
    """Run a service, or several on one port, until SIGTERM.

    What is wrong with the settings ends it with 1 and a line.
    """
    try:
        settings = load()
        configure_logs(settings.log_format, settings.log_level)
        asyncio.run(serve(Runtime(settings, builders)))
    except SettingsError as error:
        sys.exit(f"Error: {error}")


async def serve(runtime: Runtime) -> None:
    """Run until SIGTERM or SIGINT, then drain.

    Raises:
        SettingsError: the port or the data folder cannot be used.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    try:
        await runtime.start()
    except OSError as error:
        await runtime.stop()
        raise SettingsError(f"cannot listen on port {runtime.settings.port}: {error.strerror}") from None
    log.info("listening on http://%s:%d", runtime.settings.host, runtime.port)
    ready = asyncio.ensure_future(runtime.ready())
    stopping = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done() and ready.exception() is not None:
            raise ready.exception()  # type: ignore[misc]
        gc.freeze()  # what is there by now stays, and need not be looked at again and again
        await stopping
        log.info("stopping: finishing what is in hand")
    finally:
        ready.cancel()
        stopping.cancel()
        await runtime.stop()

"""What the commands share: a runtime for one errand, and watching a build with a progress bar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.up import compose
from shared.bus.envelope import Envelope, from_json
from shared.events import Event, RetrainCompleted
from shared.runtime import Kernel, Runtime, running
from shared.settings import Settings

__all__ = ["SOURCE", "errand", "follow_build", "progress_bar", "request", "until_handled"]

SOURCE = "/feedback-loop/cli"

T = TypeVar("T")


@asynccontextmanager
async def errand(settings: Settings) -> AsyncIterator[Runtime]:
    """A runtime for one errand, without HTTP.

    With a broker it only publishes, and the services that run do the work: a consumer here could
    take events away from them, with other settings than theirs. Without one it does the work itself.
    """
    runtime = Runtime(settings, []) if settings.amqp_url else compose(settings)
    async with running(runtime, http_server=False):
        yield runtime


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


async def request(kernel: Kernel, event: Event) -> Envelope:
    """Write a command to the outbox and publish it."""
    envelope = Envelope.root(event, SOURCE)
    async with kernel.database.transaction() as connection:
        await kernel.outbox.add(connection, [envelope])
    await kernel.outbox.publish([envelope])
    return envelope


async def until_handled(kernel: Kernel, event: UUID, timeout: float = 30) -> None:
    """Wait until every consumer that takes the event has dealt with it.

    Raises:
        TimeoutError: one has not.
    """

    async def handled() -> bool | None:
        async with kernel.database.connection() as connection:
            missing = await connection.fetchval(
                "select exists (select from feedback_loop.outbox o"
                " join feedback_loop.consumer c on c.type = o.type where o.event_id = $1"
                " and not exists (select from feedback_loop.inbox i"
                "   where i.consumer = c.consumer and i.event_id = o.event_id))",
                event,
            )
        return None if missing else True

    await _poll(handled, timeout)


async def follow_build(
    kernel: Kernel, root: UUID, console: Console, label: str, timeout: float = 3600
) -> RetrainCompleted:
    """Wait for the `retrain.completed` that descends from the event `root`, showing the progress.

    Raises:
        TimeoutError: it does not come.
    """
    with progress_bar(console) as bar:
        task = bar.add_task(label, total=None)

        async def ended() -> RetrainCompleted | None:
            async with kernel.database.connection() as connection:
                building = await connection.fetchrow(_BUILDING, root)
                completed = await connection.fetchval(_COMPLETED, root)
            if building:
                bar.update(task, completed=building["done"], total=building["batches"])
            if completed is None:
                return None
            total = building["batches"] if building else 1
            bar.update(task, completed=total, total=total)
            event = from_json(completed).event
            assert isinstance(event, RetrainCompleted)
            return event

        return await _poll(ended, timeout)


async def _poll(step: Callable[[], Awaitable[T | None]], timeout: float) -> T:
    async with asyncio.timeout(timeout):
        while (found := await step()) is None:
            await asyncio.sleep(0.1)
        return found


# The batches of a build all descend from what asked for it.
_BUILDING = """
select p.done, p.batches from feedback_loop.outbox o
join feedback_loop.build_progress p on p.generation = (o.envelope -> 'data' ->> 'generation')::bigint
where o.correlation = $1 and o.type = 'embedding.requested' limit 1
"""
_COMPLETED = """
select envelope from feedback_loop.outbox where correlation = $1 and type = 'retrain.completed'
"""

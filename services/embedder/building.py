"""Building a generation, one short message at a time.

    retrain.requested, generation.requested ─▶ plan ─▶ embedding.requested × n ─▶ embed_batch
    the batch that ends last ─▶ generation.built ─▶ judge ─▶ retrain.completed

Every step is idempotent; after `kill -9` at most the batch in hand is done again. Not guaranteed:
that two builds at once embed their common content once (they mostly do).
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from asyncpg import Record

from services.embedder import gate, generations, ingest, learned, store, tables
from services.embedder.chunking import CHUNKER
from services.embedder.generations import Batch
from services.embedder.ingest import Reading
from services.embedder.knowledge import Folder, skip
from services.embedder.outcomes import Request, at_once, completed, origin, told
from services.embedder.tables import Model
from shared.delivery.work import UnitOfWork
from shared.events import (
    Because,
    EmbeddingRequested,
    Event,
    GenerationBuilt,
    GenerationCounts,
    GenerationRequested,
    Outcome,
    RetrainRequested,
)
from shared.failures import Reject
from shared.postgres.database import Connection, Database
from shared.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.embedder.learning.trial import Outcome as StudyOutcome
    from services.embedder.study import Study
    from shared.embedding.models import Embedder
    from shared.embedding.vectors import Vectors

__all__ = ["Deps", "embed_batch", "fail_build", "fail_request", "judge", "plan"]

log = logging.getLogger(__name__)

Step = EmbeddingRequested | GenerationBuilt


AHEAD = 16
"""Batches of a build that are asked for at a time. More replicas than this find nothing to do; what
else there is to do, a rollback say, waits behind no more than this."""


@dataclass(frozen=True, slots=True)
class Deps:
    """What the handlers need.

    Attributes:
        knowledge: folder that the app `default` is built from, beside what was posted.
        batch: chunks in one embedding batch.
        study: what learns from votes; with the first call comes what is slow to import.
    """

    database: Database
    embedder: Embedder
    knowledge: Path | None
    batch: int
    study: Callable[[], Study]
    metrics: Metrics


async def plan(event: Request, work: UnitOfWork, deps: Deps) -> list[Event]:
    """Write down a generation of today's documents, and ask for what it lacks to be embedded."""
    reading = await _read_knowledge(event.app, deps)
    dimensions = await deps.embedder.dimensions()

    connection = await work.begin()
    await store.lock(connection)
    if reading is not None:
        await reading.take_over(connection, event.app)
    for_documents = isinstance(event, GenerationRequested) and event.reason == "documents"
    if for_documents and await generations.build_under_way(connection, event.app):
        return []  # that build's end will ask again
    model = await _model(connection, deps.embedder.model, dimensions)
    base = await generations.active(connection, event.app)
    changes = await store.compare(connection, event.app, base["id"] if base else None)
    chunks, missing = await generations.unembedded(connection, model, event.app)
    if not tables.index_later(model, len(missing)):
        await tables.index_vectors(connection, model.id)
    counts = GenerationCounts(
        **asdict(changes),
        chunks=chunks,
        embedded=len(missing),
        reused=chunks - len(missing),
        skipped=list(reading.folder.skipped) if reading else [],
    )
    if chunks == 0:
        return [at_once(event, "rejected", [Because(code="knowledge_empty")], base, counts)]
    same_recipe = base is not None and (base["model_name"], base["chunker"]) == (model.name, CHUNKER)
    taught = not for_documents and await learned.anything_to_learn(
        connection, event.app, base["id"] if base else None
    )
    if same_recipe and changes.none and not missing and not taught:
        return [at_once(event, "unchanged", [Because(code="nothing_new")], base, counts)]
    starts_anew = isinstance(event, RetrainRequested) or (base is not None and not same_recipe)
    return await _begin(event, connection, deps, model, base, starts_anew, counts, missing)


async def _model(connection: Connection, name: str, dimensions: int) -> Model:
    try:
        return await tables.register_model(connection, name, dimensions)
    except ValueError as error:
        advice = "give the model another name, or use the old one"
        raise Reject(f"the embedder changed: {error}; {advice}") from None


async def _begin(
    event: Request,
    connection: Connection,
    deps: Deps,
    model: Model,
    base: Record | None,
    starts_anew: bool,
    counts: GenerationCounts,
    missing: list[str],
) -> list[Event]:
    generation, batches = await generations.add(
        connection,
        app=event.app,
        model=model,
        chunker=CHUNKER,
        base=base["id"] if base else None,
        starts_anew=starts_anew,
        counts=counts.model_dump(),
        missing=missing,
        batch=deps.batch,
        **origin(event),
    )
    log.info("generation %d: %d of %d chunks to embed", generation, len(missing), counts.chunks)
    if batches == 0:
        return [GenerationBuilt(app=event.app, generation=generation, chunks=counts.chunks, batches=0)]
    return [EmbeddingRequested(generation=generation, batch=number) for number in range(min(AHEAD, batches))]


async def _read_knowledge(app: str, deps: Deps) -> Reading | None:
    """The knowledge folder as it is now; None where the app has none."""
    if deps.knowledge is None or app != "default":
        return None
    try:
        return await ingest.read(deps.database, app, deps.knowledge)
    except (FileNotFoundError, NotADirectoryError) as error:
        # Said in the outcome; what is known of the folder's documents stays.
        code = "folder_missing" if isinstance(error, FileNotFoundError) else "folder_file"
        missing = skip(str(deps.knowledge), code)
        return Reading(Folder({}, frozenset(), (missing,)), [])


async def embed_batch(event: EmbeddingRequested, work: UnitOfWork, deps: Deps) -> list[Event]:
    """Embed what is left of one batch, and ask for the one that comes `AHEAD` batches later."""
    async with deps.database.connection() as connection:
        batch = await generations.open_batch(connection, event.generation, event.batch)
    if batch is None:
        return []
    if batch.model.name != deps.embedder.model:
        raise Reject(
            f"generation {event.generation} is of the model {batch.model.name}, and this embedder"
            f" has {deps.embedder.model}: it was reconfigured while building"
        )
    vectors = await _embed(batch, deps)

    connection = await work.begin()
    if vectors is not None:
        await tables.store_vectors(connection, batch.model, batch.hashes, vectors)
    row = await generations.complete_batch(connection, event.generation, event.batch, len(batch.texts))
    if row is None:
        return []
    if row["remaining"] == 0:
        return [
            GenerationBuilt(
                app=row["app"], generation=row["id"], chunks=row["chunks"], batches=row["batches"]
            )
        ]
    later = event.batch + AHEAD
    return [EmbeddingRequested(generation=row["id"], batch=later)] if later < row["batches"] else []


async def _embed(batch: Batch, deps: Deps) -> Vectors | None:
    if not batch.texts:
        return None
    started = monotonic()
    vectors = await deps.embedder.embed(batch.texts)
    deps.metrics.batches.observe(monotonic() - started)
    deps.metrics.chunks.add(by=len(batch.texts))
    if vectors.shape != (len(batch.texts), batch.model.dimensions):
        raise Reject(
            f"{batch.model.name} gave {vectors.shape[1]} dimensions, and {batch.model.dimensions} before:"
            " give the model another name, or use the old one"
        )
    return vectors


async def judge(event: GenerationBuilt, work: UnitOfWork, deps: Deps) -> list[Event]:
    """Promote the generation if it passes the gate and nothing was promoted meanwhile."""
    async with deps.database.connection() as connection:
        built = await generations.peek(connection, event.generation)
        if built is None or built["state"] != "built":
            return []
        await tables.index_vectors(connection, built["model"])
    studies = deps.study()
    study = await studies.of(built)
    golden = await studies.golden_change(built, study.learned if study else None)
    await studies.searcher.prepare(built["app"], built["id"])

    connection = await work.begin()
    await store.lock(connection)
    row = await generations.read(connection, event.generation)
    if row is None or row["state"] != "built":
        return []
    verdict = await gate.judge(connection, row, study, golden)
    if verdict.outcome == "promoted":
        await _keep_learned(connection, row["id"], study, verdict.figures)
        outcome, why = await _promote(connection, row)
    else:
        outcome, why = verdict.outcome, verdict.because
    await generations.finish(connection, row["id"], outcome, verdict.figures, **told(why))
    if outcome == "promoted":
        await generations.clean_up(connection, row["app"])
    log.info("generation %d: %s", row["id"], outcome)
    ended = await completed(connection, row, outcome, why, verdict.figures)
    return [*await _again(connection, row, outcome), ended]


async def _keep_learned(
    connection: Connection, generation: int, study: StudyOutcome | None, figures: dict[str, Any]
) -> None:
    """What was learned now, if it passed; else what the base had learned."""
    if study is not None and study.learned is not None:
        await learned.write(connection, generation, study.learned, figures["learning"])
        await generations.start_anew(connection, generation)
    else:
        await learned.inherit(connection, generation)


async def _promote(connection: Connection, row: Record) -> tuple[Outcome, list[Because]]:
    why = f"{row['reason']}: {row['chunks']} chunks"
    if await generations.move_pointer(connection, row["app"], row["base"], row["id"], "promotion", why):
        return "promoted", []
    # 0: of none
    return "superseded", [Because(code="overtaken", figures={"base": row["base"] or 0})]


async def _again(connection: Connection, row: Record, outcome: str) -> list[Event]:
    """Another build, where documents came that this one does not show.

    Not after a rollback: what a person has just gone back to stays until somebody asks.
    """
    overtaken = outcome == "superseded" and not await generations.rolled_back(connection, row["app"])
    if row["again"] or overtaken:
        return [GenerationRequested(app=row["app"], reason="documents", requested_by="embedder")]
    return []


async def fail_build(event: Step, reason: str, work: UnitOfWork) -> list[Event]:
    """Give a build up: its retrain ends as `failed`, once."""
    connection = await work.begin()
    await store.lock(connection)
    row = await generations.read(connection, event.generation)
    if row is None or row["state"] not in ("building", "built"):
        return []
    await generations.finish(connection, row["id"], "failed", {}, **told(reason))
    return [*await _again(connection, row, "failed"), await completed(connection, row, "failed", reason, {})]


async def fail_request(event: Request, reason: str, work: UnitOfWork) -> list[Event]:
    """Give a request up before there was a generation."""
    connection = await work.begin()
    base = await generations.active(connection, event.app)
    return [at_once(event, "failed", reason, base, GenerationCounts())]

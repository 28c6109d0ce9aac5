"""Composition root of the embedder."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from aiohttp import web

from services.embedder import building, rollback
from services.embedder.documents_api import LARGEST_BODY, DocumentsApi
from services.embedder.golden import read_golden_set
from services.embedder.operations import CONTRACT
from services.embedder.search_api import SearchApi
from services.embedder.warming import Warming
from shared.delivery.router import Registration
from shared.events import (
    EmbeddingRequested,
    GenerationBuilt,
    GenerationRequested,
    RetrainRequested,
    RollbackRequested,
)
from shared.runtime import Kernel, Service

if TYPE_CHECKING:  # with these comes numpy
    from services.embedder.search import Searcher
    from services.embedder.study import Study
    from shared.embedding.models import Embedder

__all__ = ["build"]


def build(kernel: Kernel, embedder: Embedder | None = None) -> Service:
    """The embedder: documents in, generations and search out.

    Args:
        embedder: None: the one that the settings name.
    """
    settings = kernel.settings
    embedder = embedder or kernel.embedder()
    golden = read_golden_set(settings.golden_set)

    @cache
    def searcher() -> Searcher:
        from services.embedder.search import Searcher

        # One connection is left to the other services of the process.
        return Searcher(kernel.database, embedder, at_once=settings.database_pool_size - 1)

    @cache
    def study() -> Study:
        from services.embedder.study import Study

        return Study(kernel.database, embedder, searcher(), golden)

    documents, searches = DocumentsApi(kernel), SearchApi(kernel, searcher)
    guard, warming = kernel.guard, Warming(kernel, searcher)

    async def stop() -> None:
        await warming.stop()
        await embedder.close()

    return Service(
        name="embedder",
        contract=CONTRACT,
        routes=[
            web.get("/documents", guard.needs("admin", documents.list_documents)),
            web.post("/documents", guard.needs("admin", documents.post_documents, body=LARGEST_BODY)),
            web.delete("/documents", guard.needs("admin", documents.delete_document)),
            web.get("/search", guard.needs("read", searches.search, personal=True)),
            web.post("/search", guard.needs("read", searches.search, personal=True)),
        ],
        registrations=[
            Registration(RetrainRequested, building.plan, building.fail_request),
            Registration(GenerationRequested, building.plan, building.fail_request),
            Registration(EmbeddingRequested, building.embed_batch, building.fail_build),
            Registration(GenerationBuilt, building.judge, building.fail_build),
            Registration(RollbackRequested, rollback.roll_back, rollback.fail_rollback),
        ],
        deps=building.Deps(
            kernel.database, embedder, settings.knowledge_dir, settings.embedding_batch, study, kernel.metrics
        ),
        prefetch=1,  # one batch in hand: no more than that is lost with the process
        on_start=warming.start,
        on_stop=stop,
    )

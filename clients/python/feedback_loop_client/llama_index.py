"""A retriever for LlamaIndex: `pip install 'feedback-loop-client[llama-index]'`.

What is guaranteed: nodes come in the order of the search, the best first, each with its score, and with its
source, chunk, rank and generation as metadata; with a `conversation_id` the service remembers what was shown,
so that a later vote on that conversation's message reaches these chunks. Errors are `FeedbackLoopError`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from feedback_loop_client._client import FeedbackLoop, Found

__all__ = ["FeedbackLoopRetriever"]


class FeedbackLoopRetriever(BaseRetriever):
    """Searches an app's documents. Make one for each conversation: it costs nothing.

    Args:
        client: where the service is.
        k: how many nodes, up to 100.
        app: which app's; None: `default`.
        conversation_id, message_id: whose questions these are.
    """

    def __init__(
        self,
        client: FeedbackLoop,
        k: int = 5,
        *,
        app: str | None = None,
        conversation_id: str | int | None = None,
        message_id: str | int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._client, self._k, self._app = client, k, app
        self._ids = {"conversation_id": conversation_id, "message_id": message_id}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self._client.search(query_bundle.query_str, self._k, app=self._app, **self._ids)
        return _as_nodes(found)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _as_nodes(found: Found) -> list[NodeWithScore]:
    return [
        NodeWithScore(
            node=TextNode(
                id_=hit.chunk,
                text=hit.text,
                metadata={
                    "source": hit.source,
                    "heading": hit.heading,
                    "chunk": hit.chunk,
                    "rank": hit.rank,
                    "generation": found.generation,
                },
                # What a model need not read.
                excluded_llm_metadata_keys=["chunk", "rank", "generation"],
                excluded_embed_metadata_keys=["chunk", "rank", "generation"],
            ),
            score=hit.score,
        )
        for hit in found.results
    ]

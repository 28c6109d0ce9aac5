"""A retriever for LangChain: `pip install 'feedback-loop-client[langchain]'`.

What is guaranteed: documents come in the order of the search, the best first, each with its source, chunk,
score and the generation that it is of; with a `conversation_id` the service remembers what was shown, so that
a later vote on that conversation's message reaches these chunks. Errors are `FeedbackLoopError`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from feedback_loop_client._client import FeedbackLoop, Found

__all__ = ["FeedbackLoopRetriever"]


class FeedbackLoopRetriever(BaseRetriever):
    """Searches an app's documents.

    `retriever.invoke(question, conversation_id=…, message_id=…)` says whose question it is, for one call.

    Attributes:
        client: where the service is.
        k: how many documents, up to 100.
        app: which app's; None: `default`.
        conversation_id, message_id: whose questions these are, unless the call says.
    """

    client: FeedbackLoop
    k: int = 5
    app: str | None = None
    conversation_id: str | int | None = None
    message_id: str | int | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self._documents(query, **kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await asyncio.to_thread(self._documents, query, **kwargs)

    def _documents(self, query: str, **ids: Any) -> list[Document]:
        found = self.client.search(
            query,
            self.k,
            app=self.app,
            conversation_id=ids.get("conversation_id", self.conversation_id),
            message_id=ids.get("message_id", self.message_id),
        )
        return _as_documents(found)


def _as_documents(found: Found) -> list[Document]:
    return [
        Document(
            id=hit.chunk,
            page_content=hit.text,
            metadata={
                "source": hit.source,
                "heading": hit.heading,
                "chunk": hit.chunk,
                "score": hit.score,
                "rank": hit.rank,
                "generation": found.generation,
            },
        )
        for hit in found.results
    ]

"""The retrievers for LangChain and LlamaIndex: the real libraries against the composed services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from feedback_loop_client import FeedbackLoop, FeedbackLoopError
from feedback_loop_client.langchain import FeedbackLoopRetriever
from feedback_loop_client.llama_index import FeedbackLoopRetriever as NodeRetriever
from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.openapi import SETTINGS, furnished

Start = Callable[..., Awaitable[Runtime]]


@pytest.fixture
async def loop(start: Start, tmp_path: Path) -> FeedbackLoop:
    url, _ = await furnished(start, tmp_path)
    return FeedbackLoop(url, SETTINGS["api_token"], retries=0)


async def _shown(database: Database, conversation: str, message: str) -> list[str]:
    """The chunks that a vote on this message reaches."""
    async with database.connection() as connection:
        found: list[dict[str, Any]] = await connection.fetchval(
            "select shown from feedback_loop.search_log where conversation_id = $1 and message_id = $2",
            conversation,
            message,
        )
    return [hit["chunk"] for hit in found]


async def test_langchain_retrieves_and_a_later_vote_finds_what_was_shown(
    loop: FeedbackLoop, database: Database
) -> None:
    found = await _in_thread(loop.search, "Topic 1", 2)
    retriever = FeedbackLoopRetriever(client=loop, k=2)
    documents = await _in_thread(retriever.invoke, "Topic 1", conversation_id="lc", message_id="1")
    assert [(one.page_content, one.metadata["source"], one.metadata["score"]) for one in documents] == [
        (hit.text, hit.source, hit.score) for hit in found.results
    ]
    assert {one.metadata["generation"] for one in documents} == {found.generation}
    assert await _shown(database, "lc", "1") == [one.metadata["chunk"] for one in documents]

    own = FeedbackLoopRetriever(client=loop, k=2, conversation_id="lc-async", message_id="2")
    assert await own.ainvoke("Topic 1") == documents
    assert await _shown(database, "lc-async", "2") == [one.id for one in documents]


async def test_llama_index_retrieves_and_a_later_vote_finds_what_was_shown(
    loop: FeedbackLoop, database: Database
) -> None:
    found = await _in_thread(loop.search, "Topic 2", 2)
    retriever = NodeRetriever(loop, 2, conversation_id="li", message_id="1")
    nodes = await _in_thread(retriever.retrieve, "Topic 2")
    assert [(one.text, one.metadata["source"], one.score) for one in nodes] == [
        (hit.text, hit.source, hit.score) for hit in found.results
    ]
    assert {one.metadata["generation"] for one in nodes} == {found.generation}
    assert await _shown(database, "li", "1") == [one.metadata["chunk"] for one in nodes]

    own = NodeRetriever(loop, 2, conversation_id="li-async", message_id="2")
    assert [one.id_ for one in await own.aretrieve("Topic 2")] == [one.id_ for one in nodes]
    assert await _shown(database, "li-async", "2") == [one.id_ for one in nodes]


async def test_a_service_that_refuses_is_no_empty_result(loop: FeedbackLoop) -> None:
    stranger = FeedbackLoop(loop._transport._url, "wrong", retries=0)
    for ask in (
        FeedbackLoopRetriever(client=stranger).ainvoke("Topic"),
        NodeRetriever(stranger).aretrieve("Topic"),
    ):
        with pytest.raises(FeedbackLoopError) as refused:
            await ask
        assert refused.value.status == 401


async def _in_thread(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """The service runs in this thread's loop."""
    return await asyncio.to_thread(call, *given, **named)

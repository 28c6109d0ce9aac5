"""The composed services with something of everything in them, for tests of the HTTP contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from services.embedder.build import build as embedder
from services.up import SERVICES
from shared.runtime import Builder, Runtime
from shared.web.openapi import document
from tests.support.embedder import Bigrams
from tests.support.events import wait_until

__all__ = ["BUILDERS", "TOKEN", "furnished"]

BUILDERS: dict[str, Builder] = {**SERVICES, "embedder": partial(embedder, embedder=Bigrams())}
TOKEN = "an-admin-token-of-some-length"
SETTINGS: dict[str, Any] = {
    **{f"{name}_token": f"{name}-token-of-some-length" for name in ("trigger", "api", "read")},
    "admin_token": TOKEN,
    "rate_limit": 0,
    "vote_token_secret": "k" * 32,
    "slack_signing_secret": "s" * 32,
    "min_votes": 10,
}


async def furnished(start: Callable[..., Awaitable[Runtime]], folder: Path) -> tuple[str, dict[str, Any]]:
    """Start every service, closed to callers without a token, with documents, a generation, answers, votes,
    a run and a retrain. Returns the URL, and the document of the HTTP interface."""
    runtime = await start(list(BUILDERS.values()), data_dir=folder, **SETTINGS)
    url = f"http://127.0.0.1:{runtime.port}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(url, headers=headers, raise_for_status=True) as session:
        documents = [{"source": f"{n}.md", "content": f"# Topic {n}\n\nText {n}."} for n in range(3)]
        await session.post("/documents", json=documents)

        async def found() -> bool:
            async with session.get("/search", params={"q": "Topic 1", "conversation_id": "c1"}) as response:
                return bool((await response.json())["results"])

        await wait_until(found, 30)
        answer = {"question": "What of topic 1?", "answer": "Text", "citations": ["1.md"]}
        vote = {"feedback": "down", "reason": "the answer is old", "citations": {"1.md": "down"}}
        keys = [{"conversation_id": f"c{n}", "user_id": f"u{n}"} for n in range(20)]
        await session.post("/conversations", json=[key | answer for key in keys])
        await session.post("/feedback/batch", json=[key | vote for key in keys])
        await session.post("/run-feedback-loop")

        async def done() -> bool:
            async with session.get("/dashboard/runs") as response:
                known = await response.json()
            return bool(known["runs"]) and all(run["state"] == "done" for run in known["runs"])

        await wait_until(done, 30)
    return url, await asyncio.to_thread(document, runtime.groups)

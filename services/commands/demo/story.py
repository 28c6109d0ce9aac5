"""The demo: votes come in through the public HTTP API, the loop judges them, and acts.

A real run on the embedded database, with real embeddings; what is made up is the sample (see
README.md beside this file) and its dates: the second act plays 29 days after the first, so that
each evaluation sees its own votes.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import aiohttp
from rich.console import Console

from services.commands.console import follow_build, request, until_handled
from services.embedder.ingest import take_over_folder
from services.up import compose
from shared.events import GenerationRequested, RetrainCompleted
from shared.postgres.embedded import stop_postgres
from shared.runtime import Runtime, running
from shared.settings import Settings

__all__ = [
    "CRON",
    "as_conversations",
    "as_votes",
    "change_documents",
    "conversations",
    "load_sample",
    "tell",
]

QUESTIONS = ("단순 변심 반품은 며칠 안에 신청해야 하나요?", "Which countries do you ship to?")
CRON = "Mozilla/4.0 (compatible; cron-job.org; http://cron-job.org/abuse/)"
_TOKEN = "demo"  # of a server on the loopback that lives for two minutes


async def tell() -> None:
    """Tell the story once, in a folder of its own that is deleted at the end."""
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="fl-demo-", ignore_cleanup_errors=True) as folder:
        knowledge = Path(folder, "knowledge")
        shutil.copytree(_sample("knowledge"), knowledge)
        settings = _settings(Path(folder), knowledge)
        console.print("[bold]Starting[/] PostgreSQL, the bus and all services in one process …")
        try:
            async with running(compose(settings)) as runtime:
                await _Story(runtime, console, knowledge).tell()
        finally:
            await stop_postgres(Path(folder))  # before its folder is deleted


def _settings(folder: Path, knowledge: Path) -> Settings:
    """Settings of the demo's own: whatever the environment says, nothing real is touched."""
    given: dict[str, Any] = {
        "database_url": None,
        "amqp_url": None,
        "slack_bot_token": None,
        "slack_channel": None,
        "slack_webhook_url": None,
        "embedder": "use",
        "policy": "wilson",
        "threshold": 0.3,
        "min_votes": 20,
        "report": "always",
        "weekly_summary": "off",  # the story must be the same on every day of the week
        "report_window": "since_last",
        "report_language": "ko",
        "timezone": "Asia/Seoul",
        "dashboard_url": "http://localhost:8080",
        "slack_start_notice": True,
        "host": "127.0.0.1",
        "port": 0,
        "api_token": _TOKEN,
        "trigger_token": _TOKEN,
        "data_dir": folder,
        "knowledge_dir": knowledge,
        "golden_set": None,
        "embedding_batch": 8,
        "render": False,
    }
    return Settings(_env_file=None, **given)


class _Story:
    def __init__(self, runtime: Runtime, console: Console, knowledge: Path) -> None:
        self._runtime = runtime
        self._console = console
        self._knowledge = knowledge
        self._base = f"http://127.0.0.1:{runtime.port}"

    async def tell(self) -> None:
        second = _last_nine_o_clock(self._runtime.settings.zone)
        first = second - timedelta(days=29)
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        async with aiohttp.ClientSession(self._base, headers=headers) as self._http:
            self._say(1, "The knowledge base of a bookshop's chatbot is embedded")
            await self._embed()
            await self._ask()
            self._say(2, "100 users vote: 87 👍, 13 👎; the scheduler calls at 09:00")
            await self._vote(conversations()[:100], first)
            await self._until_reported(await self._hit(first))
            self._say(3, "A month on: the shop changed its rules, the answers are old, 41 of 100 are 👎")
            change_documents(self._knowledge)
            await self._vote(conversations()[100:], second)
            run = await self._hit(second)
            completed = await follow_build(self._runtime.kernel, run, self._console, "Re-embedding", 300)
            await self._until_told(run)
            self._say(4, "The same questions find what is true today")
            await self._ask()
        self._check(completed)

    def _say(self, number: int, text: str) -> None:
        self._console.print(f"\n[bold cyan]{number}.[/] [bold]{text}")

    async def _embed(self) -> None:
        kernel = self._runtime.kernel
        folder = await take_over_folder(kernel.database, "default", self._knowledge)
        self._console.print(f"   {len(folder.documents)} documents read (.md, .txt, .html, .pdf)")
        envelope = await request(kernel, GenerationRequested(reason="manual", requested_by="demo"))
        await follow_build(kernel, envelope.id, self._console, "Embedding", 300)
        await until_handled(kernel, envelope.id)

    async def _ask(self) -> None:
        for question in QUESTIONS:
            async with self._http.get("/search", params={"q": question, "k": "1"}) as response:
                found = (await _ok(response))["results"][0]
            text = " ".join(found["text"].split())
            self._console.print(f"   🔎 {question}\n      {found['source']}: {text[:60]} …", soft_wrap=True)

    async def _vote(self, sample: list[dict[str, Any]], as_of: datetime) -> None:
        told, votes = as_conversations(sample, as_of), as_votes(sample, as_of)
        await _ok(await self._http.post("/conversations", json=told))
        await _ok(await self._http.post("/feedback/batch", json=votes))
        self._console.print(f"   {len(votes)} votes through POST /feedback/batch")

    async def _hit(self, as_of: datetime) -> UUID:
        response = await self._http.post(
            "/run-feedback-loop", json={"as_of": as_of.isoformat()}, headers={"User-Agent": CRON}
        )
        answer = await _ok(response)
        self._console.print(f"   POST /run-feedback-loop → {response.status} {json.dumps(answer)}\n")
        return UUID(response.headers["Feedback-Loop-Run"])

    async def _until_reported(self, run: UUID) -> None:
        async with asyncio.timeout(30):
            while (await _ok(await self._http.get(f"/runs/{run}")))["state"] != "done":
                await asyncio.sleep(0.05)

    async def _until_told(self, run: UUID) -> None:
        """Until the notifier has said how the retrain ended."""
        async with self._runtime.kernel.database.connection() as connection:
            event = await connection.fetchval(
                "select event_id from feedback_loop.outbox"
                " where correlation = $1 and type = 'retrain.completed'",
                run,
            )
        await until_handled(self._runtime.kernel, event)

    def _check(self, completed: RetrainCompleted) -> None:
        """The demo says that it worked only when it did."""
        counts = completed.counts
        assert completed.outcome == "promoted", completed
        assert counts.changed and counts.added and counts.removed, counts
        assert counts.embedded < counts.chunks, "an unchanged chunk was embedded again"
        self._console.print(
            f"\n[bold green]Done.[/] Generation {completed.generation_before} → {completed.generation_after}:"
            f" {counts.embedded} of {counts.chunks} chunks embedded, the rest reused."
            " `scripts/up` stays up on http://localhost:8080."
        )


async def load_sample(runtime: Runtime) -> None:
    """Load the sample into a running system: its documents, its first 100 conversations and votes."""
    settings, now = runtime.settings, datetime.now(UTC)
    kernel = runtime.kernel
    await take_over_folder(kernel.database, "default", _sample("knowledge"))
    await request(kernel, GenerationRequested(reason="manual", requested_by="sample"))
    token = settings.api_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runtime.port}", headers=headers) as session:
        sample = conversations()[:100]
        await _ok(await session.post("/conversations", json=as_conversations(sample, now)))
        await _ok(await session.post("/feedback/batch", json=as_votes(sample, now)))


def conversations() -> list[dict[str, Any]]:
    """The sample's 200 conversations with their votes, in order."""
    lines = _sample("conversations.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def as_conversations(sample: Iterable[dict[str, Any]], as_of: datetime) -> list[dict[str, Any]]:
    """The bodies of `POST /conversations`, answered within the day before `as_of`."""
    fields = ("conversation_id", "user_id", "question", "answer", "citations")
    return [
        {**{name: entry[name] for name in fields}, "answered_at": moment}
        for entry, moment in _dated(sample, as_of)
    ]


def as_votes(sample: Iterable[dict[str, Any]], as_of: datetime) -> list[dict[str, Any]]:
    """The items of `POST /feedback/batch`, cast within the day before `as_of`."""
    fields = ("conversation_id", "user_id", "feedback", "reason")
    return [
        {**{name: entry[name] for name in fields}, "created_at": moment}
        for entry, moment in _dated(sample, as_of)
    ]


def _dated(sample: Iterable[dict[str, Any]], as_of: datetime) -> Iterable[tuple[dict[str, Any], str]]:
    for minutes, entry in enumerate(sample, start=1):
        yield entry, (as_of - timedelta(minutes=10 * minutes)).isoformat()


def change_documents(knowledge: Path) -> None:
    """Bring a copy of the sample's folder to its second state: edited, added and removed documents."""
    changed = _sample("knowledge-changed")
    for path in sorted(changed.rglob("*")):
        if path.is_file() and path.name != "REMOVED":
            target = knowledge / path.relative_to(changed)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    for source in (changed / "REMOVED").read_text(encoding="utf-8").split():
        (knowledge / source).unlink()


def _last_nine_o_clock(zone: ZoneInfo) -> datetime:
    now = datetime.now(zone)
    nine = now.replace(hour=9, minute=0, second=0, microsecond=0)
    return nine if nine <= now else nine - timedelta(days=1)


def _sample(name: str) -> Path:
    return Path(str(resources.files("services.commands.demo").joinpath(name)))


async def _ok(response: aiohttp.ClientResponse) -> Any:
    """The JSON answer of a request that must succeed."""
    async with response:
        if response.status >= 300:
            raise AssertionError(
                f"{response.method} {response.url} answered {response.status}: {await response.text()}"
            )
        return await response.json()

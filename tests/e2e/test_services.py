"""The whole story with every service as a process of its own, with no more rights than it needs: a real
RabbitMQ, a real PostgreSQL, two embedder replicas, and a server that behaves like Slack.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.commands.demo import story
from tests.support.events import wait_until
from tests.support.processes import Process
from tests.support.roles import as_service, passwords, virtual_host
from tests.support.slack import CHANNEL, TOKEN, FakeSlack

SAMPLE = Path(story.__file__).parent
SERVICES = ("trigger", "collector", "analyzer", "embedder", "embedder", "notifier", "dashboard")


async def succeed(*command: str, **environment: str) -> str:
    """Run a command to its end. Returns what it printed."""
    async with Process(*command, **environment) as errand:
        await wait_until(lambda: errand.process.poll() is not None, 60)
        assert errand.process.returncode == 0, errand.output()
        return errand.output()


def as_itself(service: str, dsn: str, broker: str) -> dict[str, str]:
    """The environment of a service that has the rights of its own user alone."""
    return {
        "DATABASE_URL": as_service(dsn, service),
        "AMQP_URL": as_service(broker, service),
        "AMQP_DECLARE": "0",
    }


class Deployment:
    def __init__(
        self, processes: list[Process], environment: dict[str, str], slack: FakeSlack, knowledge: Path
    ) -> None:
        self.trigger, self.collector, _, _, self.second, *_ = processes
        self.environment = environment
        self.slack = slack
        self.knowledge = knowledge

    async def vote(self, sample: list[dict[str, Any]], as_of: datetime) -> None:
        async with aiohttp.ClientSession(self.collector.url) as http:
            for path, body in (
                ("/conversations", story.as_conversations(sample, as_of)),
                ("/feedback/batch", story.as_votes(sample, as_of)),
            ):
                async with http.post(path, json=body) as response:
                    assert response.status == 200, await response.text()

    async def run(self, as_of: datetime) -> str:
        """Trigger as cron-job.org does; returns the run's id once it is done."""
        headers = {"User-Agent": story.CRON}
        async with aiohttp.ClientSession(self.trigger.url, headers=headers) as http:
            async with http.post("/run-feedback-loop", json={"as_of": as_of.isoformat()}) as response:
                assert response.status == 200
                assert await response.read() == b'{"status": "Feedback loop started"}'
                run = response.headers["Feedback-Loop-Run"]

            async def done() -> bool:
                async with http.get(f"/runs/{run}") as response:
                    return bool((await response.json())["state"] == "done")

            await wait_until(done, 90)
        return run

    async def first_found(self, question: str) -> str:
        async with (
            aiohttp.ClientSession(self.second.url) as http,
            http.get("/search", params={"q": question, "k": "1"}) as response,
        ):
            return str((await response.json())["results"][0]["text"])


@pytest.fixture
async def deployment(dsn: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    knowledge = tmp_path / "knowledge"
    shutil.copytree(SAMPLE / "knowledge", knowledge)
    async with FakeSlack() as slack, AsyncExitStack() as stack:
        broker = await stack.enter_async_context(virtual_host(amqp_url))
        environment = {
            "DATABASE_URL": dsn,
            "AMQP_URL": broker,
            "KNOWLEDGE_DIR": str(knowledge),
            "EMBEDDING_BATCH": "8",
            "SLACK_BOT_TOKEN": TOKEN,
            "SLACK_CHANNEL": CHANNEL,
            "SLACK_API_URL": slack.api_url,
            "WEEKLY_SUMMARY": "off",  # the same on every day of the week
            "DASHBOARD_URL": "https://loop.example.com",
        }
        administration = {
            "ROLE_PASSWORDS": passwords(),
            "RABBITMQ_MANAGEMENT_URL": os.environ["TEST_RABBITMQ_API"],
        }
        for command in (("migrate", "--roles"), ("doctor", "--fix")):
            await succeed(*command, **environment, **administration)
        processes = [
            await stack.enter_async_context(
                Process("run", name, **environment | as_itself(name, dsn, broker))
            )
            for name in SERVICES
        ]
        for process in processes:
            await process.until_ready()
        yield Deployment(processes, environment, slack, knowledge)


async def test_votes_lead_from_report_to_promotion_across_processes(deployment: Deployment) -> None:
    now = datetime.now(UTC)
    sample = story.conversations()

    ingested = await succeed("ingest", str(deployment.knowledge), **deployment.environment)
    assert "promoted: generation 1, 48 documents (48 added" in ingested
    assert "28 countries" in await deployment.first_found("Which countries do you ship to?")

    # The first evaluation finds nothing to do.
    await deployment.vote(sample[:100], now - timedelta(days=29))
    await deployment.run(now - timedelta(days=29))
    _, first = deployment.slack.texts
    report = first.splitlines()
    assert report[:6] == [
        "🧠 AI Feedback Loop Report",
        "- 👍 좋아요: 87",
        "- 👎 싫어요: 13",
        "- 총 피드백: 100",
        "- 부정 비율: 13.0%",
        "- 상태: ✅ 정상 유지",
    ]
    assert report[7] == "<https://loop.example.com|📊 실시간 Dashboard 보기>"

    # Documents change and votes turn: the analyzer asks, the embedders build, the notifier reports.
    story.change_documents(deployment.knowledge)
    await deployment.vote(sample[100:], now)
    await deployment.run(now)
    await wait_until(lambda: len(deployment.slack.texts) == 5)
    second, started, outcome = deployment.slack.texts[2:]
    assert "- 부정 비율: 41.0%" in second.splitlines()
    assert "- 상태: 🔁 재임베딩 시작" in second.splitlines()
    assert "41 / 100" in started
    assert "- 문서: 추가 1 · 변경 6 · 삭제 1" in outcome.splitlines()
    assert "34 countries" in await deployment.first_found("Which countries do you ship to?")

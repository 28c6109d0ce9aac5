"""The README's commands do what it says; those of the documents: `test_guides.py`.

A fenced block is run when the comment before it says `test: NAME`; `tests/unit/test_readme.py` checks
that every other block of commands says what it needs that a test does not have.
"""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.support.commands import (
    Background,
    answer,
    environment,
    free_ports,
    hits,
    lines,
    run,
    until,
    until_run,
)
from tests.support.cron_job_org import FakeCronJobOrg
from tests.support.readme import block

_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")


def test_demo_shows_the_reports_that_the_readme_shows() -> None:
    printed = _DATE.sub("DATE", run("demo", environment()))
    assert _DATE.sub("DATE", block("output: demo").text) in printed
    assert "Done." in printed


def test_a_vote_and_a_hit_lead_to_a_run(loop: dict[str, str]) -> None:
    before = hits(loop)
    recorded, started, listed = lines(run("try", loop))
    assert json.loads(recorded) == {"status": "ok", "message": "Feedback recorded."}
    assert started == '{"status": "Feedback loop started"}'
    assert json.loads(listed)["runs"]
    assert hits(loop) > before  # it joins the run under way, whoever started that


def test_votes_are_cast_replaced_taken_back_and_sent_in_batches(loop: dict[str, str]) -> None:
    said = [json.loads(line) for line in lines(run("bot", loop))]
    assert [one.get("message", one.get("recorded")) for one in said] == [
        "Feedback recorded.",
        "Feedback recorded.",
        "Feedback retracted.",
        2,
        "Conversation recorded.",
    ]


def test_documents_are_posted_listed_searched_and_deleted(loop: dict[str, str]) -> None:
    until(lambda: answer(f"{loop['URL']}/search?q=book")["generation"], 60)  # the sample is embedded
    posted, listed, found, deleted = lines(run("documents", loop))
    assert json.loads(posted)["status"] == "ok"
    assert "faq/returns.md" in [document["source"] for document in json.loads(listed)["documents"]]
    assert len(json.loads(found)["results"]) == 3
    assert json.loads(deleted)["status"] == "ok"


def test_an_aio_pika_publisher_sends_a_message_twice_and_gets_one_run(loop: dict[str, str]) -> None:
    for _ in range(2):
        run("aio-pika", loop)
    until_run(loop, "nightly-import")
    assert [run["requested_by"] for run in answer(f"{loop['URL']}/runs")["runs"]].count("nightly-import") == 1


def test_rabbitmqs_http_api_takes_the_event(loop: dict[str, str]) -> None:
    if not loop["RABBITMQ_API"]:
        pytest.skip("this RabbitMQ has no management plugin: TEST_RABBITMQ_API is not set")
    until(lambda: answer(f"{loop['URL']}/search?q=book")["generation"], 60)  # the sample is embedded
    before = hits(loop)
    assert json.loads(run("rabbitmq-http", loop)) == {"routed": True}
    until(lambda: hits(loop) > before, 60)  # it joins the run under way; else it makes one


def test_an_event_over_http_makes_a_run_of_its_own(loop: dict[str, str]) -> None:
    accepted = json.loads(run("events", loop))
    assert accepted["status"] == "accepted"
    assert answer(f"{loop['URL']}/runs/{accepted['run']}")["requested_by"] == "wiki"


def test_the_commands_that_look_find_something(loop: dict[str, str]) -> None:
    printed = run("cli", loop)
    assert "✘" not in printed
    assert "POLICY=wilson would have retrained" in " ".join(printed.split())
    for shown in ("7 days", "reason, cause"):  # status, votes
        assert shown in printed


async def test_the_jobs_at_cron_job_org_are_made() -> None:
    async with FakeCronJobOrg(real_time=True) as cron:
        given = {name.upper(): value for name, value in cron.settings.items()}
        env = environment(**given, TRIGGER_TOKEN="t0ken")
        printed = await asyncio.to_thread(run, "schedule", env)
    assert "daily 09:00 09:05 09:15" in printed
    assert [job["url"].rpartition("/")[2] for job in cron.jobs.values()] == ["healthz", "run-feedback-loop"]


async def test_services_started_one_by_one_report_together(dsn: str, amqp_url: str, exchange: str) -> None:
    port = free_ports(6)
    env = environment(PORT=str(port), DATABASE_URL=dsn, AMQP_URL=amqp_url, AMQP_EXCHANGE=exchange)
    with Background("services", env) as services:
        ready = [f"http://127.0.0.1:{each}/readyz" for each in range(port, port + 6)]
        services.until("ready", lambda: all(answer(url) for url in ready))
        assert answer(f"http://127.0.0.1:{port}/run-feedback-loop") == {"status": "Feedback loop started"}
        services.until("the report", lambda: "🧠 AI Feedback Loop Report" in services.output())

"""`GET /metrics`: what a process has counted, for whoever may see figures."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from services.analyzer.build import build as analyzer
from services.collector.build import build as collector
from services.notifier.build import build as notifier
from services.trigger.build import build as trigger
from shared.delivery.work import UnitOfWork
from shared.events import Event, LoopPaused
from shared.failures import Reject, Retry
from shared.postgres.database import Database
from shared.runtime import Builder, Runtime
from shared.settings import Settings
from tests.support.embedder import Bigrams
from tests.support.events import publish, wait_until
from tests.support.probe import Probe
from tests.support.processes import free_port
from tests.support.slack import FakeSlack

Start = Callable[..., Awaitable[Runtime]]
SERVICES: list[Builder] = [collector, trigger, partial(analyzer, embedder=Bigrams()), notifier]


class Client:
    def __init__(self, runtime: Runtime) -> None:
        self._url = f"http://127.0.0.1:{runtime.port}"

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str, str]:
        """Status, content type and text."""
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, f"{self._url}{path}", json=body) as response,
        ):
            return response.status, response.headers["Content-Type"], await response.text()

    async def scrape(self) -> Mapping[str, float]:
        """Every series as Prometheus writes it, and its value."""
        status, _, text = await self.ask("GET", "/metrics")
        assert status == 200, text
        return {
            f"{sample.name}{{{','.join(map('='.join, sample.labels.items()))}}}": sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


async def test_a_run_is_counted_from_votes_to_slack(start: Start, slack: FakeSlack) -> None:
    client = Client(await start(SERVICES, **slack.bot))
    for vote in ("like", "like", "dislike", None):
        await client.ask("POST", "/feedback", {"conversation_id": f"c-{vote}", "feedback": vote})
    await client.ask("POST", "/feedback", {"conversation_id": "c", "feedback": "nonsense"})
    await client.ask("GET", "/run-feedback-loop")

    async def posted() -> bool:
        return (await client.scrape()).get("feedback_loop_slack_posts_total{kind=report}") == 1

    await wait_until(posted, 60)
    found = await client.scrape()
    expected = {
        "feedback_loop_votes_total{vote=like}": 2,
        "feedback_loop_votes_total{vote=dislike}": 1,
        "feedback_loop_votes_total{vote=retracted}": 1,
        "feedback_loop_http_requests_total{method=POST,route=/feedback,status=200}": 4,
        "feedback_loop_http_requests_total{method=POST,route=/feedback,status=422}": 1,
        "feedback_loop_http_request_duration_seconds_count{method=POST,route=/feedback}": 5,
        "feedback_loop_events_published_total{type=feedback.evaluate}": 1,
        "feedback_loop_events_published_total{type=report.ready}": 1,
        "feedback_loop_events_handled_total{consumer=analyzer,outcome=processed,type=feedback.evaluate}": 1,
        "feedback_loop_events_handled_total{consumer=analyzer,outcome=dead,type=feedback.evaluate}": 0,
        "feedback_loop_event_handling_seconds_count{consumer=analyzer,type=feedback.evaluate}": 1,
        "feedback_loop_evaluations_total{verdict=insufficient_data}": 1,
        "feedback_loop_window_votes{app=default}": 2,
        "feedback_loop_negative_ratio{app=default}": 0.5,
        "feedback_loop_slack_failures_total{reason=down}": 0,
        "feedback_loop_consumer_parked{consumer=notifier}": 0,
        "feedback_loop_ready{}": 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["feedback_loop_last_evaluation_timestamp_seconds{app=default}"] > 1.7e9


async def test_an_analyzer_that_starts_knows_the_last_evaluation(start: Start, slack: FakeSlack) -> None:
    first = Client(await start(SERVICES, **slack.bot))
    await first.ask("POST", "/feedback", {"conversation_id": "c", "feedback": "dislike"})
    await first.ask("GET", "/run-feedback-loop")
    await wait_until(lambda: slack.texts, 60)
    found = await Client(await start([partial(analyzer, embedder=Bigrams())])).scrape()
    assert found["feedback_loop_negative_ratio{app=default}"] == 1
    assert found["feedback_loop_window_votes{app=default}"] == 1
    assert found["feedback_loop_last_evaluation_timestamp_seconds{app=default}"] > 1.7e9
    assert found["feedback_loop_evaluations_total{verdict=insufficient_data}"] == 0


async def test_how_handling_ends_is_counted(start: Start) -> None:
    tried: list[Event] = []

    async def fails(event: Event, work: UnitOfWork) -> list[Event]:
        tried.append(event)
        if len(tried) == 1:
            raise Retry(0, "once")
        raise Reject("for good")

    runtime = await start([Probe(work=fails)])
    await publish(runtime.kernel, LoopPaused(why="test"))
    client = Client(runtime)

    async def ended() -> Mapping[str, float] | None:
        found = await client.scrape()
        ends = {
            match[1]: value
            for name, value in found.items()
            if value
            and (match := re.search(r"_handled_total{consumer=probe,outcome=(\w+),type=loop.paused", name))
        }
        return ends if "dead" in ends else None

    assert await wait_until(ended) == {"retried": 1, "dead": 1}


async def test_the_outbox_is_shown_as_the_relay_saw_it(start: Start, database: Database) -> None:
    runtime = await start([Probe()])
    client = Client(runtime)
    assert (await client.scrape())["feedback_loop_outbox_open_events{}"] == 0
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.outbox (event_id, type, producer, correlation, envelope, created_at)"
            " values (gen_random_uuid(), 'loop.resumed', 'test', gen_random_uuid(), '{}',"
            " now() - interval '1 h')"
        )
    await runtime.kernel.outbox.relay()
    found = await client.scrape()
    assert found["feedback_loop_outbox_open_events{}"] == 1
    assert found["feedback_loop_outbox_oldest_age_seconds{}"] >= 3600


async def test_a_scrape_needs_no_database(make_settings: Callable[..., Settings]) -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    runtime = Runtime(make_settings(database_url=nowhere), [trigger])
    await runtime.start()
    try:
        assert (await Client(runtime).scrape())["feedback_loop_ready{}"] == 0
    finally:
        await runtime.stop()


async def test_paths_that_lead_nowhere_make_no_series_of_their_own(start: Start) -> None:
    client = Client(await start([trigger]))
    for path in ("/a", "/b"):
        await client.ask("GET", path)
    await client.ask("PROPFIND", "/a")
    await client.ask("DELETE", "/run-feedback-loop")
    found = await client.scrape()
    nowhere = {
        name: value for name, value in found.items() if "http_requests" in name and "route=none" in name
    }
    prefix = "feedback_loop_http_requests_total{method="
    assert nowhere == {
        f"{prefix}GET,route=none,status=404}}": 2,
        f"{prefix}other,route=none,status=404}}": 1,
        f"{prefix}DELETE,route=none,status=405}}": 1,
    }


async def test_who_may_see_figures_may_scrape(start: Start) -> None:
    client = Client(await start([trigger], read_token="r" * 20, api_token="a" * 20, environment="production"))
    assert (await client.ask("GET", "/metrics"))[0] == 401
    assert (await client.ask("GET", "/metrics", Authorization=f"Bearer {'x' * 20}"))[0] == 401
    for token in ("r" * 20, "a" * 20):
        status, kind, text = await client.ask(
            "GET", "/metrics", Authorization=f"Bearer {token}", Accept="application/openmetrics-text"
        )
        assert status == 200 and kind.startswith("application/openmetrics-text") and text.endswith("# EOF\n")


async def test_where_figures_are_open_any_token_will_do(start: Start) -> None:
    """Compose's Prometheus always sends one."""
    client = Client(await start([trigger], environment="production"))
    status, kind, _ = await client.ask("GET", "/metrics", Authorization="Bearer none")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")

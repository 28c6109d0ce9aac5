"""The trigger over HTTP, in front of a real database and either bus."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import aiohttp
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from services.trigger.build import build
from shared.bus.envelope import Message, event_id
from shared.bus.port import BusError, Topology
from shared.events import FeedbackEvaluate
from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.events import wait_until
from tests.support.probe import Probe
from tests.support.proxy import in_front_of
from tests.support.rabbit import channel, publish_over_http, sweep

EXACT = b'{"status": "Feedback loop started"}'
CRON = "Mozilla/4.0 (compatible; cron-job.org; http://cron-job.org/abuse/)"
RUN = "/run-feedback-loop"

Start = Callable[..., Awaitable[Runtime]]


class Client:
    """An HTTP client of one runtime, and a look at its runs."""

    def __init__(self, session: aiohttp.ClientSession, database: Database) -> None:
        self._session = session
        self._database = database
        self.runtime: Runtime | None = None

    async def call(self, method: str, path: str = RUN, **request: Any) -> tuple[int, bytes, dict[str, str]]:
        assert self.runtime is not None
        url = f"http://127.0.0.1:{self.runtime.port}{path}"
        async with self._session.request(method, url, **request) as response:
            return response.status, await response.read(), dict(response.headers)

    async def json(self, method: str, path: str = RUN, **request: Any) -> tuple[int, Any]:
        status, body, headers = await self.call(method, path, **request)
        assert headers["Content-Type"].startswith("application/json")
        return status, json.loads(body)

    async def hit(self, method: str = "GET", **request: Any) -> list[UUID]:
        """Hit the trigger, which must accept. Returns the runs it names."""
        status, body, headers = await self.call(method, **request)
        assert (status, body) == (200, EXACT)
        return [UUID(id) for id in headers["Feedback-Loop-Run"].split(", ")]

    async def runs(self) -> list[Any]:
        async with self._database.connection() as connection:
            return list(await connection.fetch("select * from feedback_loop.run order by started_at"))

    async def execute(self, sql: str, *arguments: object) -> None:
        async with self._database.connection() as connection:
            await connection.execute(sql, *arguments)


@pytest.fixture
async def client(database: Database) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, database)


@pytest.fixture
def analyzer() -> Probe:
    """Takes evaluations, as the analyzer does."""
    return Probe("analyzer", event=FeedbackEvaluate)


@pytest.fixture
async def trigger(start: Start, client: Client, analyzer: Probe) -> Callable[..., Awaitable[Client]]:
    async def begin(**settings: Any) -> Client:
        client.runtime = await start([build, analyzer], **settings)
        return client

    return begin


Trigger = Callable[..., Awaitable[Client]]


async def vote(client: Client, *apps: str) -> None:
    for app in apps:
        await client.execute(
            "insert into feedback_loop.vote (app, conversation_id, value)"
            " values ($1, gen_random_uuid()::text, 1)",
            app,
        )


# --- the contract with schedulers -----------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_hit_answers_exactly_this_and_starts_a_run(
    trigger: Trigger, analyzer: Probe, method: str
) -> None:
    client = await trigger()
    status, body, headers = await client.call(method)
    assert (status, body) == (200, b'{"status": "Feedback loop started"}')
    assert headers["Content-Type"].startswith("application/json")
    (run,) = await client.runs()
    await wait_until(lambda: analyzer.calls)
    (event,) = analyzer.calls
    assert isinstance(event, FeedbackEvaluate)
    assert (event.app, event.as_of, event.scheduled) == ("default", run["as_of"], False)
    assert headers["Feedback-Loop-Run"] == str(run["id"])


async def test_a_link_checker_starts_nothing(trigger: Trigger) -> None:
    client = await trigger()
    status, body, headers = await client.call("HEAD")
    assert (status, body) == (405, b"")
    assert headers["Allow"] == "GET, POST"
    assert await client.runs() == []


async def test_cron_job_org_is_named_and_makes_the_run_scheduled(trigger: Trigger, analyzer: Probe) -> None:
    client = await trigger()
    await client.hit(headers={"User-Agent": CRON})
    (run,) = await client.runs()
    assert (run["requested_by"], run["scheduled"]) == ("cron-job.org", True)
    await wait_until(lambda: analyzer.calls)
    (event,) = analyzer.calls
    assert isinstance(event, FeedbackEvaluate)
    assert (event.requested_by, event.scheduled) == ("cron-job.org", True)


async def test_a_caller_may_name_itself_and_say_that_it_is_scheduled(trigger: Trigger) -> None:
    client = await trigger()
    await client.hit("POST", json={"requested_by": "야간 작업", "scheduled": True})
    (run,) = await client.runs()
    assert (run["requested_by"], run["scheduled"]) == ("야간 작업", True)


async def test_parameters_of_the_schedulers_own_are_ignored(trigger: Trigger) -> None:
    client = await trigger()
    await client.hit(params={"utm": "x", "app": "shop", "cache-buster": "1"})
    assert [run["app"] for run in await client.runs()] == ["shop"]


async def test_without_app_every_app_with_votes_has_its_run(trigger: Trigger, analyzer: Probe) -> None:
    client = await trigger()
    await vote(client, "shop", "shop", "bank", "앱")
    ids = await client.hit()
    assert sorted(run["app"] for run in await client.runs()) == ["bank", "shop", "앱"]
    assert {run["id"] for run in await client.runs()} == set(ids)
    await wait_until(lambda: len(analyzer.calls) == 3)


async def test_with_app_only_that_app_has_a_run(trigger: Trigger) -> None:
    client = await trigger()
    await vote(client, "shop", "bank")
    await client.hit("POST", json={"app": "shop"})
    assert [run["app"] for run in await client.runs()] == ["shop"]


async def test_as_of_and_window_reach_the_event(trigger: Trigger, analyzer: Probe) -> None:
    client = await trigger()
    await client.hit("POST", json={"as_of": "2025-10-17T09:00:00+09:00", "window": "7d"})
    await wait_until(lambda: analyzer.calls)
    (event,) = analyzer.calls
    assert isinstance(event, FeedbackEvaluate)
    assert event.as_of == datetime(2025, 10, 17, tzinfo=UTC)
    assert event.window == "7d"


# --- joining --------------------------------------------------------------------------------


async def test_hits_within_the_window_are_one_run(trigger: Trigger) -> None:
    client = await trigger()
    (first,) = await client.hit()
    await client.execute("update feedback_loop.run set started_at = now() - interval '19 minutes'")
    assert await client.hit("POST") == [first]
    (run,) = await client.runs()
    assert run["hits"] == 2


async def test_a_hit_after_the_window_is_a_run_of_its_own(trigger: Trigger) -> None:
    client = await trigger()
    (first,) = await client.hit()
    await client.execute("update feedback_loop.run set started_at = now() - interval '21 minutes'")
    assert await client.hit() != [first]
    assert len(await client.runs()) == 2


async def test_joining_does_not_prolong_the_window(trigger: Trigger) -> None:
    client = await trigger()
    for _ in range(3):
        await client.hit()
        await client.execute("update feedback_loop.run set started_at = started_at - interval '11 minutes'")
    assert len(await client.runs()) == 2


async def test_the_window_is_a_setting(trigger: Trigger) -> None:
    client = await trigger(trigger_window=60)
    (first,) = await client.hit()
    await client.execute("update feedback_loop.run set started_at = now() - interval '59 minutes'")
    assert await client.hit() == [first]


async def test_a_scheduled_hit_makes_the_run_it_joins_scheduled(trigger: Trigger) -> None:
    client = await trigger()
    await client.hit(headers={"User-Agent": "curl/8.5.0"})
    await client.hit(headers={"User-Agent": CRON})
    (run,) = await client.runs()
    assert (run["scheduled"], run["requested_by"]) == (True, "curl")


async def test_apps_do_not_join_each_others_runs(trigger: Trigger) -> None:
    client = await trigger()
    assert await client.hit(params={"app": "shop"}) != await client.hit(params={"app": "bank"})


async def test_another_as_of_is_another_run(trigger: Trigger) -> None:
    client = await trigger()
    ids = [
        *await client.hit("POST"),
        *await client.hit("POST", json={"as_of": "2025-10-17T00:00:00Z"}),
        *await client.hit("POST", json={"as_of": "2025-10-18T00:00:00Z"}),
    ]
    assert len(set(ids)) == 3
    assert await client.hit("POST", json={"as_of": "2025-10-17T09:00:00+09:00"}) == [ids[1]]
    assert await client.hit("POST") == [ids[0]]


async def test_fifty_hits_at_once_are_one_run(trigger: Trigger, analyzer: Probe) -> None:
    client = await trigger()
    answers = await asyncio.gather(*(client.hit() for _ in range(50)))
    assert len({id for ids in answers for id in ids}) == 1
    (run,) = await client.runs()
    assert run["hits"] == 50
    await wait_until(lambda: analyzer.calls)
    assert len(set(analyzer.calls)) == 1


async def test_different_hits_at_once_are_counted_each_for_its_own_run(trigger: Trigger) -> None:
    client = await trigger()
    await vote(client, "bank", "shop")
    hits = [
        *(client.hit(params={"app": "shop"}) for _ in range(7)),
        *(client.hit("POST", headers={"Idempotency-Key": "k1"}) for _ in range(5)),
        *(client.hit() for _ in range(6)),
        client.hit(params={"app": "shop"}, headers={"User-Agent": CRON}),
    ]
    named = await asyncio.gather(*hits)
    runs = {run["id"]: run for run in await client.runs()}
    counted = sorted((run["app"], run["idempotency_key"] or "", run["hits"]) for run in runs.values())
    assert counted == [("bank", "", 6), ("bank", "k1", 5), ("shop", "", 14), ("shop", "k1", 5)]
    assert [sorted(runs[id]["app"] for id in ids) for ids in named] == [
        *[["shop"]] * 7, *[["bank", "shop"]] * 11, ["shop"],
    ]  # fmt: skip
    assert [run["scheduled"] for run in runs.values() if run["hits"] == 14] == [True]


async def test_an_idempotency_key_makes_a_run_of_its_own(trigger: Trigger) -> None:
    client = await trigger()
    (joinable,) = await client.hit()
    (own,) = await client.hit("POST", headers={"Idempotency-Key": "k1"})
    (other,) = await client.hit("POST", headers={"Idempotency-Key": "k2"})
    assert len({joinable, own, other}) == 3
    await client.execute("update feedback_loop.run set started_at = now() - interval '3 days'")
    assert await client.hit("POST", headers={"Idempotency-Key": "k1"}) == [own]


async def test_nobody_joins_a_run_with_an_idempotency_key(trigger: Trigger) -> None:
    client = await trigger()
    (own,) = await client.hit("POST", headers={"Idempotency-Key": "k1"})
    assert await client.hit() != [own]


async def test_one_idempotency_key_used_at_once_is_one_run(trigger: Trigger) -> None:
    client = await trigger()
    hits = (client.hit("POST", headers={"Idempotency-Key": "k1"}) for _ in range(10))
    assert len({id for ids in await asyncio.gather(*hits) for id in ids}) == 1


# --- who may --------------------------------------------------------------------------------


WRONG = [None, "", "Bearer", "Bearer wrong", "Basic s3cret", "bearer s3cret", "Bearer s3cret x", "Bearer é"]


async def test_without_the_token_nothing_starts(trigger: Trigger, subtests: pytest.Subtests) -> None:
    client = await trigger(trigger_token="s3cret")
    for method, path in (("GET", RUN), ("POST", RUN), ("POST", "/events")):
        for given in WRONG:
            with subtests.test(method=method, path=path, given=given):
                headers = {"Authorization": given} if given is not None else {}
                status, answer = await client.json(method, path, headers=headers)
                assert (status, answer["status"], answer["field"]) == (401, "error", "authorization")
    assert await client.runs() == []


async def test_with_the_token_it_starts(trigger: Trigger) -> None:
    client = await trigger(trigger_token="s3cret")
    await client.hit(headers={"Authorization": "Bearer s3cret"})
    status, _, _ = await client.call("GET", "/runs")
    assert status == 200  # reading stays open


async def test_an_open_trigger_in_production_is_warned_of(
    trigger: Trigger, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await trigger(environment="production")
    assert "TRIGGER_TOKEN is not set" in caplog.text


# --- not now --------------------------------------------------------------------------------


async def test_a_run_that_cannot_be_published_is_kept_and_the_next_hit_publishes_it(
    trigger: Trigger, analyzer: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await trigger()
    assert client.runtime is not None

    async def refuse(message: Message) -> None:
        raise BusError("the broker is away")

    with monkeypatch.context() as patch:
        patch.setattr(client.runtime.kernel.bus, "publish", refuse)
        status, answer = await client.json("POST", json={"window": "7d"})
        reason = "the bus does not answer; the log has more"
        assert (status, answer) == (503, {"status": "unavailable", "reason": reason})
    (run,) = await client.runs()
    assert await client.hit() == [run["id"]]
    await wait_until(lambda: analyzer.calls)
    (event,) = analyzer.calls
    assert isinstance(event, FeedbackEvaluate)
    assert event.window == "7d"  # as it was first asked for


async def test_a_run_that_nobody_would_see_is_not_called_started(start: Start, client: Client) -> None:
    client.runtime = await start([build])
    status, answer = await client.json("GET")
    assert status == 503
    assert "no consumer takes 'feedback.evaluate'" in answer["reason"]


async def test_while_the_bus_hangs_the_answer_does_not(
    trigger: Trigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await trigger()
    assert client.runtime is not None

    async def hang(message: Message) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(client.runtime.kernel.bus, "publish", hang)
    monkeypatch.setattr("services.trigger.app.WITHIN", 0.3)
    await _is_503_within_five_seconds(client)
    assert len(await client.runs()) == 1  # kept


@pytest.mark.parametrize("fault", ["cut", "frozen"])
async def test_while_the_database_is_away_the_answer_is_503_within_five_seconds(
    trigger: Trigger, dsn: str, fault: str
) -> None:
    async with in_front_of(dsn, 5432) as proxy:
        client = await trigger(database_url=proxy.url)
        if fault == "cut":
            await proxy.cut()
        else:
            proxy.freeze()
        await asyncio.gather(*(_is_503_within_five_seconds(client, path) for path in (RUN, "/events")))
        await proxy.cut()
        await proxy.heal()
        await wait_until(lambda: _accepts(client))


async def _is_503_within_five_seconds(client: Client, path: str = RUN) -> None:
    start = time.monotonic()
    status, answer = await client.json("POST", path, headers={"ce-type": "feedback.evaluate"})
    assert time.monotonic() - start < 5
    assert status == 503
    assert answer["status"] == "unavailable"
    assert answer["reason"]


async def _accepts(client: Client) -> bool:
    status, _, _ = await client.call("GET")
    return status == 200


async def test_a_hit_while_starting_waits_and_is_accepted(trigger: Trigger) -> None:
    client = await trigger()
    assert client.runtime is not None
    client.runtime.kernel.ready.clear()
    hit = asyncio.create_task(client.hit())
    await asyncio.sleep(0.2)
    assert not hit.done()
    client.runtime.kernel.ready.set()
    await hit


async def test_a_hit_while_starting_takes_too_long_is_not_accepted(
    trigger: Trigger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.trigger.app.STARTING", 0.1)
    client = await trigger()
    assert client.runtime is not None
    client.runtime.kernel.ready.clear()
    client.runtime.kernel.waiting_for = "waiting for the database"
    assert await client.json("GET") == (
        503,
        {"status": "unavailable", "reason": "waiting for the database"},
    )
    client.runtime.kernel.ready.set()


# --- bad input ------------------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}


BAD_HITS = [
    (JSON, b"{", 400, "body"),
    (JSON, b"\xff", 400, "body"),
    (JSON, b"[" * 100_000, 400, "body"),
    (JSON, b"[]", 422, "body"),
    (JSON, b'"x"', 422, "body"),
    (JSON, b'{"no_such": 1}', 422, "no_such"),
    (JSON, b'{"app": ""}', 422, "app"),
    (JSON, b'{"app": "two words"}', 422, "app"),
    (JSON, b'{"app": 7}', 422, "app"),
    (JSON, b'{"app": "%s"}' % (b"x" * 65), 422, "app"),
    (JSON, b'{"as_of": "yesterday"}', 422, "as_of"),
    (JSON, b'{"as_of": "2025-10-17T09:00:00"}', 422, "as_of"),
    (JSON, b'{"as_of": "0001-01-01T00:00:00+14:00"}', 422, "as_of"),
    (JSON, b'{"window": "a while"}', 422, "window"),
    (JSON, b'{"window": "0d"}', 422, "window"),
    (JSON, b'{"requested_by": ""}', 422, "requested_by"),
    (JSON, b'{"scheduled": "perhaps"}', 422, "scheduled"),
    (JSON, b" " * (1024 * 1024 + 1), 413, "body"),
    ({"Content-Type": "text/plain"}, b"{}", 415, "content-type"),
    ({"Content-Type": "application/x-www-form-urlencoded"}, b"app=shop", 415, "content-type"),
    ({"Idempotency-Key": ""}, b"", 400, "Idempotency-Key"),
    ({"Idempotency-Key": "x" * 201}, b"", 400, "Idempotency-Key"),
    ({"Idempotency-Key": "half \udcff"}, b"", 400, "Idempotency-Key"),
]


async def test_a_bad_hit_names_the_field_and_starts_nothing(
    trigger: Trigger, subtests: pytest.Subtests
) -> None:
    client = await trigger()
    for headers, body, status, field in BAD_HITS:
        with subtests.test(headers=headers, body=body[:50]):
            assert await _refusal(client, "POST", RUN, headers, body) == (status, field)
    assert await client.runs() == []


async def test_a_bad_query_is_refused(trigger: Trigger, subtests: pytest.Subtests) -> None:
    client = await trigger()
    for query in ("app=", "app=%00", "as_of=noon", "window=1w", "scheduled=perhaps"):
        with subtests.test(query=query):
            status, answer = await client.json("GET", f"{RUN}?{query}")
            assert (status, answer["field"]) == (422, query.partition("=")[0])
    assert await client.runs() == []


async def test_text_that_would_not_show_is_flattened(trigger: Trigger) -> None:
    client = await trigger()
    await client.hit("POST", json={"requested_by": "two\nlines\u0000\u202e"})
    (run,) = await client.runs()
    assert run["requested_by"] == "two lines"


async def test_other_methods_and_paths_are_refused_as_json(trigger: Trigger) -> None:
    client = await trigger()
    status, answer = await client.json("DELETE")
    assert (status, answer["field"]) == (405, "method")
    status, answer = await client.json("GET", "/no/such")
    assert (status, answer["field"]) == (404, "path")


async def _refusal(
    client: Client, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, str]:
    """Status and field of a refusal; written by hand, as aiohttp's client would mend the request."""
    assert client.runtime is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", client.runtime.port)
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body)
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    parsed = json.loads(answer)
    assert parsed["status"] == "error"
    assert parsed["reason"]
    return int(head.split()[1]), parsed["field"]


# --- where runs stand -----------------------------------------------------------------------


async def test_runs_are_listed_latest_first(trigger: Trigger) -> None:
    client = await trigger()
    ids = [
        str((await client.hit("POST", headers={"Idempotency-Key": f"k{number}"}))[0]) for number in range(3)
    ]
    status, answer = await client.json("GET", "/runs?limit=2")
    assert status == 200
    assert [run["id"] for run in answer["runs"]] == ids[:0:-1]
    run = answer["runs"][0]
    assert (run["app"], run["hits"], run["scheduled"]) == ("default", 1, False)
    assert datetime.fromisoformat(run["started_at"]).utcoffset() == timedelta(0)


async def test_runs_of_one_app_are_listed(trigger: Trigger) -> None:
    client = await trigger()
    await client.hit(params={"app": "shop"})
    await client.hit(params={"app": "bank"})
    _, answer = await client.json("GET", "/runs?app=shop")
    assert [run["app"] for run in answer["runs"]] == ["shop"]


async def test_one_run_is_shown(trigger: Trigger) -> None:
    client = await trigger()
    (id,) = await client.hit()
    status, answer = await client.json("GET", f"/runs/{id}")
    assert (status, answer["id"], answer["state"]) == (200, str(id), "started")


async def test_a_run_that_is_not_published_waits(trigger: Trigger, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await trigger()
    assert client.runtime is not None

    async def refuse(message: Message) -> None:
        raise BusError("the broker is away")

    monkeypatch.setattr(client.runtime.kernel.bus, "publish", refuse)
    await client.call("GET")
    _, answer = await client.json("GET", "/runs")
    assert [run["state"] for run in answer["runs"]] == ["waiting"]


BAD_QUESTIONS = [
    ("/runs/nonsense", 422, "id"),
    (f"/runs/{uuid4()}", 404, "id"),
    ("/runs?limit=0", 422, "limit"),
    ("/runs?limit=201", 422, "limit"),
    ("/runs?limit=%C2%B2", 422, "limit"),
    ("/runs?app=%00", 422, "app"),
]


async def test_a_bad_question_about_runs_is_refused(trigger: Trigger, subtests: pytest.Subtests) -> None:
    client = await trigger()
    for path, status, field in BAD_QUESTIONS:
        with subtests.test(path=path):
            got, answer = await client.json("GET", path)
            assert (got, answer["field"]) == (status, field)


# --- events over HTTP -----------------------------------------------------------------------


def _foreign(**attributes: Any) -> CloudEvent:
    required = {"id": "order 1", "source": "/상점", "type": "feedback.evaluate"}
    return CloudEvent({**required, "datacontenttype": "application/json", **attributes}, {"app": "shop"})


@pytest.mark.parametrize("write", [to_binary_event, to_structured_event])
async def test_a_cloudevent_of_the_sdk_becomes_a_run_of_its_own(
    trigger: Trigger, analyzer: Probe, write: Any
) -> None:
    client = await trigger()
    (joinable,) = await client.hit(params={"app": "shop"})
    sent = write(_foreign())
    status, answer = await client.json("POST", "/events", data=sent.body, headers=sent.headers)
    id = event_id("/상점", "order 1")
    assert (status, answer) == (202, {"status": "accepted", "run": str(id)})
    assert {run["id"] for run in await client.runs()} == {joinable, id}
    await wait_until(lambda: len(analyzer.calls) == 2)
    assert await client.hit(params={"app": "shop"}) == [joinable]  # nobody joins the foreign run


async def test_the_same_event_twice_is_one_run_judged_at_one_time(trigger: Trigger, analyzer: Probe) -> None:
    client = await trigger()
    sent = to_binary_event(_foreign())
    for _ in range(2):
        await client.json("POST", "/events", data=sent.body, headers=sent.headers)
    (run,) = await client.runs()
    await wait_until(lambda: len(analyzer.calls) == 2)
    assert {event.as_of for event in analyzer.calls if isinstance(event, FeedbackEvaluate)} == {run["as_of"]}


async def test_an_anonymous_event_joins_the_current_run(trigger: Trigger) -> None:
    client = await trigger()
    (id,) = await client.hit(params={"app": "shop"})
    status, answer = await client.json(
        "POST", "/events", json={"app": "shop"}, headers={"ce-type": "feedback.evaluate"}
    )
    assert (status, answer["run"]) == (202, str(id))
    assert len(await client.runs()) == 1


async def test_an_event_that_cannot_be_published_is_kept(
    trigger: Trigger, analyzer: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await trigger()
    assert client.runtime is not None

    async def refuse(message: Message) -> None:
        raise BusError("the broker is away")

    sent = to_binary_event(_foreign())
    with monkeypatch.context() as patch:
        patch.setattr(client.runtime.kernel.bus, "publish", refuse)
        status, _ = await client.json("POST", "/events", data=sent.body, headers=sent.headers)
        assert status == 503
    await client.runtime.kernel.outbox.relay(everything=True)
    await wait_until(lambda: analyzer.calls)


EVALUATE = {"ce-type": "feedback.evaluate"}


BAD_EVENTS = [
    (EVALUATE, b"{", 422, "event"),
    (EVALUATE, b'{"window": "a while"}', 422, "event"),
    ({}, b"{}", 422, "event"),
    ({"ce-type": "no.such"}, b"{}", 422, "event"),
    ({"ce-type": "loop.paused", "ce-id": "1"}, b"{}", 422, "type"),
    ({**EVALUATE, "ce-id": "1", "ce-source": "/feedback-loop/trigger"}, b"{}", 422, "source"),
    ({**EVALUATE, "ce-id": "half \udcff"}, b"{}", 422, "event"),
    ({**EVALUATE, "ce-id": "%00"}, b"{}", 422, "event"),
    ({"Content-Type": "application/cloudevents+json"}, b"{}", 422, "event"),
    ({"Content-Type": "application/cloudevents-batch+json"}, b"[]", 415, "content-type"),
    ({**EVALUATE, "Content-Type": "application/x-www-form-urlencoded"}, b"{}", 415, "content-type"),
    (EVALUATE, b" " * (1024 * 1024 + 1), 413, "body"),
]


async def test_a_bad_event_names_the_field_and_starts_nothing(
    trigger: Trigger, subtests: pytest.Subtests
) -> None:
    client = await trigger()
    for headers, body, status, field in BAD_EVENTS:
        with subtests.test(headers=headers, body=body[:50]):
            assert await _refusal(client, "POST", "/events", headers, body) == (status, field)
    assert await client.runs() == []


# --- over RabbitMQ --------------------------------------------------------------------------


@pytest.fixture
async def over_rabbit(
    trigger: Trigger, start: Start, amqp_url: str, exchange: str, client: Client
) -> AsyncIterator[tuple[Client, Probe, Runtime]]:
    """The trigger and an analyzer in one process, a notifier in another."""
    settings = {"amqp_url": amqp_url, "amqp_exchange": exchange}
    notifier = Probe("notifier", event=FeedbackEvaluate)
    await trigger(**settings)
    yield client, notifier, await start([notifier], **settings)
    await sweep(amqp_url, Topology(exchange, ladder=(0.05, 0.1, 0.2)), ["analyzer", "notifier"])


async def test_a_hit_reaches_both_consumers_under_one_run(
    over_rabbit: tuple[Client, Probe, Runtime], analyzer: Probe
) -> None:
    client, notifier, _ = over_rabbit
    (id,) = await client.hit()
    await wait_until(lambda: analyzer.calls and notifier.calls)
    await _one_run(client, id)


async def test_a_bare_body_from_aio_pika_is_one_run_to_both_consumers(
    over_rabbit: tuple[Client, Probe, Runtime], analyzer: Probe, amqp_url: str, exchange: str
) -> None:
    client, notifier, _ = over_rabbit
    async with channel(amqp_url) as opened:
        topic = await opened.get_exchange(exchange)
        await topic.publish(aio_pika.Message(b'{"app": "shop"}'), routing_key="feedback.evaluate")
    await wait_until(lambda: analyzer.calls and notifier.calls)
    assert analyzer.calls == notifier.calls
    await _one_run(client)


async def test_a_message_without_any_id_joins_the_current_run_at_both_consumers(
    over_rabbit: tuple[Client, Probe, Runtime], analyzer: Probe, exchange: str
) -> None:
    client, notifier, _ = over_rabbit
    (id,) = await client.hit(params={"app": "shop"})
    await publish_over_http(exchange, "feedback.evaluate", '{"app": "shop"}')
    await wait_until(lambda: len(analyzer.calls) == len(notifier.calls) == 2)
    assert len({*analyzer.calls, *notifier.calls}) == 1
    await _one_run(client, id)


async def _one_run(client: Client, id: UUID | None = None) -> None:
    (run,) = await client.runs()
    assert id in (None, run["id"])

    async def both() -> bool:
        async with client._database.connection() as connection:
            rows = await connection.fetch("select consumer, event_id from feedback_loop.inbox")
        return sorted((row["consumer"], row["event_id"]) for row in rows) == [
            ("analyzer", run["id"]),
            ("notifier", run["id"]),
        ]

    await wait_until(both)

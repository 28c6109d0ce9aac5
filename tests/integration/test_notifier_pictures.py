"""The trend's picture: in the report's thread, once, and never in the report's way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from services.notifier import pictures
from shared.charts.picture import PictureError
from shared.events import ReportReady
from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.events import publish, publish_envelopes
from tests.support.notifying import OWNER_S_REPORT, a_run, outcome, report, retrain, row_of, settled
from tests.support.slack import FakeSlack, Fault

PNG = b"\x89PNG a picture"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Specifications, instead of the second that each would take to draw (`test_picture.py` draws)."""
    specs: list[dict[str, Any]] = []

    async def draw(spec: dict[str, Any], timeout: float) -> bytes:
        specs.append(spec)
        return PNG

    monkeypatch.setattr(pictures, "render_png", draw)
    return specs


@pytest.fixture
async def votes(database: Database) -> None:
    """Votes of today and of three days ago."""
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.vote (conversation_id, value, created_at)"
            " select n::text, n % 3 / 2, now() - make_interval(days => n % 2 * 3)"
            " from generate_series(1, 40) n"
        )


async def building(database: Database, state: str) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.model (name, dimensions, table_name) values ('m', 3, 't')"
            " on conflict do nothing"
        )
        await connection.execute(
            "insert into feedback_loop.generation (app, model, chunker, reason, state, chunks, batches,"
            " remaining, counts, starts_anew)"
            " select 'default', id, 'c', 'manual', $1, 1, 1, 1, '{}', true from feedback_loop.model",
            state,
        )


async def tell(runtime: Runtime, *events: Any) -> None:
    await settled(runtime, *await publish(runtime.kernel, *events))


def today(**more: Any) -> ReportReady:
    """A report of now: the picture ends where the report does."""
    return report(as_of=datetime.now(UTC), **more)


async def test_picture_follows_its_report_into_the_thread(
    slack: FakeSlack, notifier: Callable[..., Any], votes: None, drawn: list[dict[str, Any]]
) -> None:
    runtime = await notifier(**slack.bot)
    await tell(runtime, today())
    [picture] = slack.pictures
    assert (picture.png, picture.thread_ts) == (PNG, slack.messages[0].ts)
    assert slack.calls.index("chat.postMessage") < slack.calls.index("files.getUploadURLExternal")


async def test_picture_shows_the_votes_by_day_and_what_was_promoted(
    slack: FakeSlack,
    notifier: Callable[..., Any],
    votes: None,
    drawn: list[dict[str, Any]],
    database: Database,
) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.promotion (app, generation, kind, promoted_at)"
            " values ('default', 7, 'promotion', now() - interval '2 days'),"
            "        ('shop', 8, 'promotion', now() - interval '2 days')"
        )
    await tell(await notifier(**slack.bot), today())
    rows = drawn[0]["data"]["values"]
    assert [row["likes"] + row["dislikes"] for row in rows[-4:]] == [20, 0, 0, 20]
    assert "7" in str(drawn[0]["layer"]) and "세대 8" not in str(drawn[0]) and "gen 8" not in str(drawn[0])


async def test_redelivered_report_has_one_picture(
    slack: FakeSlack, notifier: Callable[..., Any], votes: None, drawn: list[dict[str, Any]]
) -> None:
    runtime = await notifier(**slack.bot)
    [envelope] = await publish(runtime.kernel, today())
    await settled(runtime, envelope)
    async with runtime.kernel.database.connection() as connection:
        await connection.execute("delete from feedback_loop.inbox where event_id = $1", envelope.id)
    await publish_envelopes(runtime.kernel, envelope)
    await settled(runtime, envelope)
    assert len(slack.pictures) == 1 and len(drawn) == 1


async def test_no_picture_is_drawn_while_a_build_is_under_way_and_it_comes_with_the_outcome(
    slack: FakeSlack,
    notifier: Callable[..., Any],
    votes: None,
    drawn: list[dict[str, Any]],
    database: Database,
) -> None:
    runtime, run = await notifier(**slack.bot), a_run()
    await building(database, "building")
    await settled(runtime, *await publish(runtime.kernel, retrain(run), cause=run))
    assert drawn == []
    async with database.connection() as connection:
        await connection.execute("update feedback_loop.generation set state = 'promoted'")
    await settled(runtime, *await publish(runtime.kernel, outcome(run), cause=run))
    assert [picture.thread_ts for picture in slack.pictures] == [slack.messages[0].ts]


@pytest.mark.parametrize("through", ["webhook", "terminal"])
async def test_where_there_is_no_thread_nothing_is_drawn(
    through: str,
    slack: FakeSlack,
    notifier: Callable[..., Any],
    votes: None,
    drawn: list[dict[str, Any]],
) -> None:
    await tell(await notifier(**(slack.webhook if through == "webhook" else {})), today())
    assert drawn == []


async def test_where_nobody_voted_nothing_is_drawn(
    slack: FakeSlack, notifier: Callable[..., Any], drawn: list[dict[str, Any]]
) -> None:
    await tell(await notifier(**slack.bot), today())
    assert drawn == []


async def test_missing_scope_is_said_once_and_costs_nothing_more(
    slack: FakeSlack,
    notifier: Callable[..., Any],
    votes: None,
    drawn: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    slack.files_error = "missing_scope"
    runtime = await notifier(**slack.bot)
    with caplog.at_level(logging.WARNING):
        await tell(runtime, today(), today())
    assert len(slack.messages) == 2 and len(drawn) == 1
    assert len([record for record in caplog.records if "files:write" in record.message]) == 1


async def test_picture_that_cannot_be_drawn_leaves_the_report_alone(
    slack: FakeSlack, notifier: Callable[..., Any], votes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def draw(spec: dict[str, Any], timeout: float) -> bytes:
        raise PictureError("no memory")

    monkeypatch.setattr(pictures, "render_png", draw)
    runtime = await notifier(**slack.bot)
    await tell(runtime, report(), today())
    assert slack.texts[0] == OWNER_S_REPORT and len(slack.texts) == 2 and slack.pictures == []


async def test_picture_that_slack_did_not_take_is_offered_again_with_the_outcome(
    slack: FakeSlack, notifier: Callable[..., Any], votes: None, drawn: list[dict[str, Any]]
) -> None:
    runtime, run = await notifier(**slack.bot), a_run()
    slack.files_error = "ratelimited"
    event = retrain(run).model_copy(update={"as_of": today().as_of})
    await settled(runtime, *await publish(runtime.kernel, event, cause=run))
    assert slack.pictures == []
    slack.files_error = None
    await settled(runtime, *await publish(runtime.kernel, outcome(run), cause=run))
    assert len(slack.pictures) == 1
    assert (await row_of(runtime, f"picture/{run.id}"))["state"] == "posted"


async def test_run_s_report_counts_as_posted_without_its_picture(
    slack: FakeSlack, notifier: Callable[..., Any], votes: None, drawn: list[dict[str, Any]]
) -> None:
    slack.next(Fault())
    slack.files_error = "internal_error"
    runtime = await notifier(**slack.bot)
    event = today()
    await tell(runtime, event)
    assert (await row_of(runtime, f"report/{event.run}"))["state"] == "posted"


async def test_picture_is_really_drawn(slack: FakeSlack, notifier: Callable[..., Any], votes: None) -> None:
    await tell(await notifier(**slack.bot), today())
    [picture] = slack.pictures
    assert picture.png.startswith(b"\x89PNG\r\n\x1a\n") and len(picture.png) > 10_000

"""What stands beside a report in Slack, which reports are told at all, and the weekly summary."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.bus.envelope import Envelope
from shared.events import Aftermath, Alert, ComplaintGroup, Evidence, ReportReady
from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.events import publish
from tests.support.notifying import (
    NINE,
    OWNER_S_REPORT,
    a_run,
    outcome,
    report,
    retrain,
    settled,
)
from tests.support.slack import FakeSlack, Fault
from tests.support.slack_blocks import texts

HOSTILE = "<!channel> <@U0BOSS> *굵게* \u202eمرحبا 👩‍👩‍👧 " + "가" * 10_000


async def tell(runtime: Runtime, *events: Any) -> None:
    await settled(runtime, *await publish(runtime.kernel, *events))


def state(**more: Any) -> Alert:
    return Alert(**{"state": "OK", "since": NINE, "before": "OK", **more})


def aftermath() -> Aftermath:
    side = Evidence(
        name="x", start=NINE, end=NINE + timedelta(days=7), likes=70, dislikes=30, low=0.2, high=0.4
    )
    return Aftermath(generation=5, previous=4, before=side, after=side, verdict="same", sentence="")


# --- beside the text ------------------------------------------------------------------------


@pytest.mark.parametrize("through", ["bot", "webhook"])
async def test_report_has_its_text_and_blocks(
    through: str, slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**getattr(slack, through))
    await tell(runtime, report())
    assert slack.texts == [OWNER_S_REPORT]
    assert texts(slack.messages[0].body["blocks"])[0] == OWNER_S_REPORT


@pytest.mark.parametrize("through", ["bot", "webhook"])
async def test_hostile_report_is_taken(through: str, slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    groups = [ComplaintGroup(label=HOSTILE, quote=HOSTILE, votes=5, users=3)] * 10
    runtime = await notifier(**getattr(slack, through), slack_signing_secret="s")
    await tell(runtime, report(complaint_groups=groups, coverage_gaps=[HOSTILE] * 5))
    assert len(slack.messages) == 1 and slack.problems == []


@pytest.mark.parametrize("through", ["bot", "webhook"])
async def test_blocks_that_slack_refuses_do_not_keep_the_report_back(
    through: str, slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**getattr(slack, through))
    slack.next(Fault(error="invalid_blocks", status=400 if through == "webhook" else 200))
    await tell(runtime, report())
    assert slack.texts == [OWNER_S_REPORT] and not slack.messages[0].body.get("blocks")


async def test_report_in_doubt_shows_the_doubt_in_its_blocks_too(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.webhook)
    slack.next(Fault(stores=True, then="drop"))
    await tell(runtime, report())
    assert texts(slack.messages[-1].body["blocks"])[-1] == "(재전송)"


async def test_users_words_stay_at_home_where_they_must(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    groups = [ComplaintGroup(label="비밀", quote="비밀", votes=5, users=3)]
    run = a_run()
    event = retrain(run).model_copy(update={"complaint_groups": groups, "coverage_gaps": ["비밀"]})
    runtime = await notifier(**slack.bot, slack_quotes=False)
    await tell(runtime, event)
    assert "비밀" not in str([message.body for message in slack.messages])


async def test_buttons_are_there_with_a_signing_secret_alone(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot)
    await tell(runtime, report())
    assert "do_rollback" not in str(slack.messages[0].body)


# --- only what is new -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        report(alert=state(changed=True)),
        report(alert=state(recovered=True)),
        report(alert=None),
        report(alert=state(), aftermath=aftermath()),
        report(alert=state(), verdict="act"),
    ],
    ids=["changed", "recovered", "no state", "aftermath", "act"],
)
async def test_what_is_new_is_told(
    event: ReportReady, slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot, report="on_change")
    await tell(runtime, event)
    assert slack.texts[0].startswith("🧠 AI Feedback Loop Report")


async def test_what_is_not_new_is_not_told_where_only_that_is_wanted(
    slack: FakeSlack, notifier: Callable[..., Any]
) -> None:
    runtime = await notifier(**slack.bot, report="on_change")
    await tell(runtime, report(alert=state()))
    assert slack.messages == []


async def test_every_report_is_told_by_default(slack: FakeSlack, notifier: Callable[..., Any]) -> None:
    runtime = await notifier(**slack.bot)
    await tell(runtime, report(alert=state()))
    assert len(slack.messages) == 1


async def test_quiet_run_is_done_all_the_same(
    slack: FakeSlack, notifier: Callable[..., Any], database: Database
) -> None:
    runtime, run = await notifier(**slack.bot, report="on_change"), uuid.uuid4()
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.run (id, app, as_of) values ($1, 'default', now())", run
        )
        await connection.execute(
            "insert into feedback_loop.decision (run, app, as_of, scheduled, verdict, reason, explanation,"
            " window_start, likes, dislikes) values ($1, 'default', now(), true, 'ok', '', '', now(), 1, 0)",
            run,
        )
    [envelope] = await publish(runtime.kernel, report(run=run, alert=state()), cause=_root(run))
    await settled(runtime, envelope)
    async with database.connection() as connection:
        found = await connection.fetchval("select state from feedback_loop.run_status where id = $1", run)
    assert found == "done"


def _root(run: uuid.UUID) -> Envelope:
    return replace(a_run(), id=run, correlation=run)


# --- the week -------------------------------------------------------------------------------


async def today(database: Database) -> str:
    """The day of the week in Seoul, as the setting names it."""
    async with database.connection() as connection:
        return str(await connection.fetchval("select lower(to_char(now() at time zone 'Asia/Seoul', 'dy'))"))


async def vote(database: Database, days_ago: int, likes: int, dislikes: int, app: str = "default") -> None:
    """Votes at noon in Seoul, some days ago."""
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.vote (app, conversation_id, value, created_at)"
            " select $1, $2::text || '/' || n, (n <= $3::int)::int,"
            " (date_trunc('day', now() at time zone 'Asia/Seoul') - make_interval(days => $4::int)"
            "   + interval '12 hours') at time zone 'Asia/Seoul'"
            " from generate_series(1, $3::int + $5::int) n",
            app, str(days_ago), likes, days_ago, dislikes,
        )  # fmt: skip


def summaries(slack: FakeSlack) -> list[str]:
    return [text for text in slack.texts if "AI 성능 개선 리포트" in text]


async def test_week_is_summed_up_once_on_its_day(
    slack: FakeSlack, notifier: Callable[..., Any], database: Database
) -> None:
    await vote(database, 1, 17, 3)
    await vote(database, 7, 1, 1)
    await vote(database, 8, 10, 10)
    await vote(database, 0, 50, 50)  # today is not over
    runtime = await notifier(**slack.bot, weekly_summary=await today(database))
    await tell(runtime, report())
    await tell(runtime, report())
    [said] = summaries(slack)
    assert "👍 좋아요: 18 (10)\n- 👎 싫어요: 4 (10)\n- 부정 비율: 18.2% (95% CI 7–39, n=22)" in said


async def test_no_week_is_summed_up_on_another_day(
    slack: FakeSlack, notifier: Callable[..., Any], database: Database
) -> None:
    await vote(database, 1, 17, 3)
    other = "mon" if await today(database) != "mon" else "tue"
    runtime = await notifier(**slack.bot, weekly_summary=other)
    await tell(runtime, report())
    assert summaries(slack) == []


async def test_each_app_has_its_week(
    slack: FakeSlack, notifier: Callable[..., Any], database: Database
) -> None:
    await vote(database, 1, 1, 0)
    await vote(database, 1, 0, 1, "shop")
    runtime = await notifier(**slack.bot, weekly_summary=await today(database))
    await tell(runtime, report(), report(app="shop"))
    assert len(summaries(slack)) == 2 and any("(shop)" in text for text in summaries(slack))


async def test_week_in_which_nothing_happened_is_not_summed_up(
    slack: FakeSlack, notifier: Callable[..., Any], database: Database
) -> None:
    runtime = await notifier(**slack.bot, weekly_summary=await today(database))
    await tell(runtime, report())
    assert summaries(slack) == []


async def test_week_is_summed_up_though_its_report_is_quiet(
    slack: FakeSlack, notifier: Callable[..., Any], database: Database
) -> None:
    await vote(database, 1, 1, 0)
    day = await today(database)
    runtime = await notifier(**slack.bot, weekly_summary=day, report="on_change")
    await tell(runtime, report(alert=state()))
    assert len(slack.texts) == len(summaries(slack)) == 1


async def test_week_tells_what_was_rebuilt_and_what_it_did(
    slack: FakeSlack, notifier: Callable[..., Any], database: Database
) -> None:
    runtime = await notifier(**slack.bot, weekly_summary=await today(database))
    await tell(runtime, outcome(generation_before=4, generation_after=5))
    async with database.connection() as connection:
        await connection.execute(
            "update feedback_loop.outbox set created_at = now() - interval '2 days'"
            " where type = 'retrain.completed'"
        )
        await connection.execute(
            "insert into feedback_loop.verdict (generation, app, previous, run, verdict, sentence,"
            " before_start, promoted_at, after_end, before_likes, before_dislikes, after_likes,"
            " after_dislikes, decided_at) values (5, 'default', 4, gen_random_uuid(), 'better', '',"
            " now() - interval '30 days', now() - interval '9 days', now() - interval '2 days',"
            " 66, 34, 79, 21, now() - interval '2 days')"
        )
    await tell(runtime, report())
    [said] = summaries(slack)
    assert "- 피드백: 적용 4 → 5\n- 📈 재임베딩 7일 뒤: 부정 비율 34.0% → 21.0%" in said


async def test_week_names_what_people_complained_about(
    slack: FakeSlack, notifier: Callable[..., Any], database: Database
) -> None:
    await vote(database, 1, 0, 4)
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.complaint_group (id, app, label)"
            " values ('g', 'default', '배송 <늦음>')"
        )
        await connection.execute(
            "insert into feedback_loop.complaint (vote, app, cause, group_id)"
            " select id, app, 'unknown', 'g' from feedback_loop.vote limit 3"
        )
    runtime = await notifier(**slack.bot, weekly_summary=await today(database))
    await tell(runtime, report())
    assert "불만 상위: 배송 &lt;늦음&gt; (👎 3)" in summaries(slack)[0]


async def test_week_is_on_the_terminal_where_there_is_no_slack(
    notifier: Callable[..., Any], database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    await vote(database, 1, 17, 3)
    runtime = await notifier(weekly_summary=await today(database))
    await tell(runtime, report())
    assert "AI 성능 개선 리포트" in capsys.readouterr().out


async def test_a_day_later_the_summary_that_slack_did_not_take_is_still_due(
    slack: FakeSlack, notifier: Callable[..., Any], database: Database
) -> None:
    """The report's own day counts, not that of the attempt that gets through."""
    await vote(database, 2, 17, 3)
    async with database.connection() as connection:
        yesterday = await connection.fetchval(
            "select lower(to_char((now() - interval '1 day') at time zone 'Asia/Seoul', 'dy'))"
        )
    runtime = await notifier(**slack.bot, weekly_summary=yesterday)
    event = report()
    slack.always(Fault(status=503))
    [envelope] = await publish(runtime.kernel, event)
    async with database.connection() as connection:
        await connection.execute(
            "update feedback_loop.outbox set created_at = created_at - interval '1 day' where event_id = $1",
            envelope.id,
        )
    slack.always(None)
    await settled(runtime, envelope)
    assert len(summaries(slack)) == 1

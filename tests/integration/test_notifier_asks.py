"""What Slack asks back: `/ai-report` and the buttons; who may, how often, and what it leads to."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from shared.postgres.database import Database
from shared.runtime import Runtime
from tests.support.events import publish, wait_until
from tests.support.notifying import OWNER_S_REPORT, URL, report, settled
from tests.support.slack import FakeSlack
from tests.support.slack_asks import SECRET, USER, asks, presses, pressing, sends, signed
from tests.support.slack_blocks import texts

COMMANDS, INTERACTIONS = "/slack/commands", "/slack/interactions"
FORM = b"command=%2Fai-report&text=7&user_id=U0JIN"


@pytest.fixture
async def listening(slack: FakeSlack, notifier: Callable[..., Any]) -> Runtime:
    """A notifier that takes what Slack asks, of one user."""
    runtime: Runtime = await notifier(
        **slack.bot, slack_signing_secret=SECRET, slack_allowed_users=f"U0OTHER, {USER}"
    )
    return runtime


async def told(runtime: Runtime, **more: Any) -> str:
    """A report that is posted; gives the value of its buttons."""
    event = report(**more)
    await settled(runtime, *await publish(runtime.kernel, event))
    return str(event.run)


async def commanded(database: Database) -> list[tuple[str, dict[str, Any]]]:
    """The commands that Slack led to: type and data, oldest first."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select type, envelope from feedback_loop.outbox where producer = 'slack' order by created_at"
        )
    return [(row["type"], row["envelope"]["data"]) for row in rows]


async def reply(slack: FakeSlack) -> dict[str, Any]:
    """What was sent to the message's address."""
    await wait_until(lambda: slack.replies)
    return slack.replies.pop(0)


# --- who is heard ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", [COMMANDS, INTERACTIONS])
async def test_without_a_signing_secret_nobody_is_heard(path: str, notifier: Callable[..., Any]) -> None:
    answer = await sends(await notifier(), path, FORM, signed(FORM))
    assert answer.status == 403 and "closed until SLACK_SIGNING_SECRET is set" in answer.text


def forged() -> dict[str, dict[str, str]]:
    """Headers that Slack would not send with `FORM` now."""
    now = int(time.time())
    return {
        "none": {},
        "another secret": signed(FORM, secret="another"),
        "another body": signed(FORM + b"&x=1"),
        "old": signed(FORM, at=now - 301),
        "of the future": signed(FORM, at=now + 3600),
        **{f"time {at[:5]!r}": signed(FORM, at=at) for at in ("now", "", "1e9", "9" * 5000)},
        "no ASCII": {**signed(FORM), "X-Slack-Signature": "v0=é"},
        "blank": {**signed(FORM), "X-Slack-Signature": ""},
    }


@pytest.mark.parametrize("path", [COMMANDS, INTERACTIONS])
async def test_what_slack_did_not_sign_just_now_is_refused(path: str, listening: Runtime) -> None:
    for name, headers in forged().items():
        answer = await sends(listening, path, FORM, headers)
        assert answer.status == 401, name


async def test_body_that_is_no_text_is_refused(listening: Runtime) -> None:
    answer = await sends(listening, COMMANDS, b"\xff\xfe", signed(b"\xff\xfe"))
    assert answer.status == 401


async def test_same_request_is_taken_once(listening: Runtime) -> None:
    headers = signed(FORM)
    first = await sends(listening, COMMANDS, FORM, headers)
    second = await sends(listening, COMMANDS, FORM, headers)
    assert (first.status, second.status) == (200, 409)


async def test_of_many_copies_at_once_one_is_taken(
    listening: Runtime, slack: FakeSlack, database: Database
) -> None:
    value = await told(listening)
    body = pressing("do_reembed", value, slack.response_url)
    headers = signed(body)
    answers = await asyncio.gather(*(sends(listening, INTERACTIONS, body, headers) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409]
    assert len(await commanded(database)) == 1


async def test_requests_are_remembered_for_an_hour(listening: Runtime, database: Database) -> None:
    await asks(listening)
    async with database.connection() as connection:
        await connection.execute(
            "update feedback_loop.slack_request set received_at = now() - interval '2 hours'"
        )
    await asks(listening, "8")
    async with database.connection() as connection:
        assert await connection.fetchval("select count(*) from feedback_loop.slack_request") == 1


async def test_large_request_is_refused(listening: Runtime) -> None:
    body = b"a=" + b"b" * 300_000
    assert (await sends(listening, COMMANDS, body, signed(body))).status == 413


async def test_more_presses_than_a_message_has_buttons_are_refused(listening: Runtime) -> None:
    press = {"action_id": "do_pause", "value": "x"}
    payload = {"type": "block_actions", "user": {"id": "U0JIN"}, "actions": [press] * 1000}
    body = urlencode({"payload": json.dumps(payload)}).encode()
    assert (await sends(listening, INTERACTIONS, body, signed(body))).status == 422


async def test_payload_that_says_nothing_is_refused(listening: Runtime) -> None:
    for body in (b"", b"payload=", b"payload=%5B%5D", b"payload=%7B", b"payload=" + b"%5B" * 9000):
        assert (await sends(listening, INTERACTIONS, body, signed(body))).status in (400, 422), body[:20]


# --- /ai-report -----------------------------------------------------------------------------


async def test_report_is_for_who_asks(listening: Runtime, database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.vote (conversation_id, value, created_at)"
            " select n::text, (n > 3)::int, now() - make_interval(days => case when n > 18 then 9 else 0 end)"
            " from generate_series(1, 20) n"
        )
    answer = await asks(listening, "7")
    assert answer.status == 200 and answer.text.startswith("🧠 AI Feedback Loop Report · 최근 7일 (")
    assert "- 👍 좋아요: 15\n- 👎 싫어요: 3\n- 총 피드백: 18\n- 부정 비율: 16.7% (95% CI" in answer.text
    assert "- 이전 7일: 부정 비율 0.0% (95% CI 0–66, n=2)" in answer.text
    assert answer.text.endswith(f"<{URL}|📊 실시간 Dashboard 보기>")


async def test_report_tells_of_every_app_with_its_state(listening: Runtime, database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "insert into feedback_loop.alert (app, state, since, troubled, run, as_of, changed_at)"
            " select a, s, now(), false, gen_random_uuid(), now(), now()"
            " from (values ('default', 'OK'), ('shop', 'ALERT')) as t (a, s)"
        )
    answer = await asks(listening)
    assert "경보 상태: 🟢 정상" in answer.text
    assert "Report (shop)" in answer.text and "경보 상태: 🔴 경보" in answer.text


async def test_bad_span_is_answered_with_how_to_ask(listening: Runtime) -> None:
    usage = "사용법: `/ai-report [일수]` (1–90, 기본 7). 예: `/ai-report 14`"
    for text in ("x", "0", "91", "-1", "7 days", "1e1", "七", "<!channel>", "9" * 500):
        answer = await asks(listening, text)
        assert (answer.status, answer.text) == (200, usage), text


async def test_stranger_is_told_their_id_and_the_setting(listening: Runtime) -> None:
    answer = await asks(listening, user="U0EVE")
    assert answer.status == 200 and "U0EVE" in answer.text and "SLACK_ALLOWED_USERS" in answer.text


async def test_nobody_may_where_nobody_is_named(notifier: Callable[..., Any], slack: FakeSlack) -> None:
    runtime = await notifier(**slack.bot, slack_signing_secret=SECRET)
    assert "SLACK_ALLOWED_USERS" in (await asks(runtime)).text


# --- buttons --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("button", "type", "data"),
    [
        ("do_reembed", "generation.requested", {"reason": "manual"}),
        ("do_rollback", "rollback.requested", {"to_generation": None}),
        ("do_pause", "loop.paused", {"until": None}),
        ("do_resume", "loop.resumed", {}),
    ],
)
async def test_button_becomes_a_command_of_its_report_s_app(
    button: str, type: str, data: dict[str, Any], listening: Runtime, slack: FakeSlack, database: Database
) -> None:
    value = await told(listening, app="shop")
    assert (await presses(listening, button, value, slack.response_url)).status == 200
    [(found, said)] = await commanded(database)
    assert found == type and said.items() >= {"app": "shop", "requested_by": "jin", **data}.items()


async def test_command_is_published(listening: Runtime, slack: FakeSlack, database: Database) -> None:
    await presses(listening, "do_pause", await told(listening), slack.response_url)
    await wait_until(lambda: any("일시 중지했습니다" in text for text in slack.texts))


async def test_message_says_who_did_what_and_loses_the_button(listening: Runtime, slack: FakeSlack) -> None:
    await presses(listening, "do_rollback", await told(listening), slack.response_url)
    update = await reply(slack)
    assert update["replace_original"] is True and update["text"] == OWNER_S_REPORT
    assert texts(update["blocks"])[-1].startswith("✅ 요청됨: 롤백 · jin · ")
    assert "do_rollback" not in str(update) and "do_reembed" in str(update)


async def test_what_others_did_before_stays_in_the_message(listening: Runtime, slack: FakeSlack) -> None:
    value = await told(listening)
    await presses(listening, "do_rollback", value, slack.response_url)
    await reply(slack)
    await presses(listening, "do_pause", value, slack.response_url, user="U0OTHER", name="mina")
    said = texts((await reply(slack))["blocks"])[-2:]
    assert "롤백 · jin" in said[0] and "일시 중지 · mina" in said[1]


async def test_second_press_does_nothing_and_says_who_was_first(
    listening: Runtime, slack: FakeSlack, database: Database
) -> None:
    value = await told(listening)
    await presses(listening, "do_rollback", value, slack.response_url)
    await reply(slack)
    await presses(listening, "do_rollback", value, slack.response_url, user="U0OTHER", name="mina")
    said = await reply(slack)
    assert said["response_type"] == "ephemeral" and "이미 요청되었습니다: 롤백 · jin" in said["text"]
    assert len(await commanded(database)) == 1


async def test_stranger_s_press_does_nothing_and_tells_them_why(
    listening: Runtime, slack: FakeSlack, database: Database
) -> None:
    await presses(listening, "do_rollback", await told(listening), slack.response_url, user="U0EVE")
    said = await reply(slack)
    assert said["response_type"] == "ephemeral" and said["replace_original"] is False
    assert "U0EVE" in said["text"] and "SLACK_ALLOWED_USERS" in said["text"]
    assert await commanded(database) == []


async def test_press_that_the_database_is_too_slow_for_is_told_so(
    listening: Runtime, slack: FakeSlack, database: Database
) -> None:
    value = await told(listening)
    async with database.transaction() as connection:
        await connection.execute("lock table feedback_loop.slack_action in access exclusive mode")
        answer = await presses(listening, "do_pause", value, slack.response_url)
        said = await reply(slack)
    assert answer.status == 200
    assert said["response_type"] == "ephemeral" and "잠시 뒤에 다시" in said["text"]
    await presses(listening, "do_pause", value, slack.response_url)
    assert [type for type, _ in await commanded(database)] == ["loop.paused"]


async def test_button_of_no_report_does_nothing(
    listening: Runtime, slack: FakeSlack, database: Database
) -> None:
    for value in ("", "x", str(uuid.UUID(int=1)), "{}"):
        await presses(listening, "do_rollback", value, slack.response_url)
        assert (await reply(slack))["response_type"] == "ephemeral", value
    assert await commanded(database) == []


async def test_button_that_does_not_exist_does_nothing(
    listening: Runtime, slack: FakeSlack, database: Database
) -> None:
    await presses(listening, "do_drop", await told(listening), slack.response_url)
    assert (await reply(slack))["text"] == "알 수 없는 버튼입니다."
    assert await commanded(database) == []


async def test_button_that_opens_a_page_is_only_acknowledged(
    listening: Runtime, slack: FakeSlack, database: Database
) -> None:
    answer = await presses(listening, "open_report", "", slack.response_url)
    assert (answer.status, answer.text) == (200, "") and await commanded(database) == []


async def test_answer_goes_nowhere_but_to_slack(
    listening: Runtime, slack: FakeSlack, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeSlack() as elsewhere:
        await presses(listening, "do_pause", await told(listening), elsewhere.response_url)
        await wait_until(lambda: "not Slack's" in caplog.text)
        assert elsewhere.calls == [] and len(await commanded(database)) == 1


async def test_command_stands_though_the_message_cannot_be_changed(
    listening: Runtime, slack: FakeSlack, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    value, url = await told(listening), slack.response_url
    await slack.go_away()
    assert (await presses(listening, "do_reembed", value, url)).status == 200
    await wait_until(lambda: "did not reach Slack" in caplog.text)
    assert len(await commanded(database)) == 1 and "5ecret" not in caplog.text


async def test_hostile_name_is_only_shown(listening: Runtime, slack: FakeSlack, database: Database) -> None:
    name = "<!channel> \u202e" + "가" * 500
    await presses(listening, "do_reembed", await told(listening), slack.response_url, name=name)
    await reply(slack)
    [(_, said)] = await commanded(database)
    assert len(said["requested_by"]) <= 80 and slack.problems == []
